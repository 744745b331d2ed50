"""What a gateway answers by itself: the models that there are for whoever asks, and refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.api.names import TENANT_HEADER, TIMEOUT_HEADER
from holdfast.api.route import Route
from holdfast_gateway.render import deadlines
from holdfast_gateway.render.errors import error_body
from holdfast_gateway.render.values import MODEL_METADATA, Document, header
from holdfast_gateway.tenants import Tenant, may_use


@dataclass(frozen=True)
class View:
    """What some of those who ask see."""

    tenants: tuple[str, ...]
    """Empty: all others."""
    models: tuple[str, ...]
    """In the order of their services."""
    first: Route | None
    """The service that answers what names no model; None: they see none."""

    @property
    def who(self) -> list[Document]:
        """Matches of their requests' headers."""
        return [one_of(self.tenants)] if self.tenants else []


def views(routes: Sequence[Route], tenants: Sequence[Tenant]) -> tuple[View, ...]:
    """Tenants that may use the same services have one view; those that may use all need no mention. The last one is
    that of all others."""
    alike: dict[tuple[str, ...] | None, list[Tenant]] = {}
    for tenant in tenants:
        alike.setdefault(tenant.settings.models, []).append(tenant)
    seen: dict[tuple[str, ...], tuple[list[str], Route | None]] = {}
    for some in alike.values():
        visible = [route for route in routes if may_use(some[0], route.model)]
        if len(visible) < len(routes):
            models = tuple(route.model for route in visible)
            names, _ = seen.setdefault(models, ([], visible[0] if visible else None))
            names += [tenant.name for tenant in some]
    every = View((), tuple(route.model for route in routes), routes[0] if routes else None)
    return (*(View(tuple(sorted(names)), models, first) for models, (names, first) in seen.items()), every)


def one_of(tenants: Iterable[str]) -> Document:
    """Matches requests of these tenants."""
    names = "|".join(re.escape(name) for name in tenants)
    return {"name": TENANT_HEADER, "string_match": {"safe_regex": {"regex": names}}}


def model_lists(seen: Sequence[View]) -> list[Document]:
    """OpenAI's `GET /v1/models`, answered by Envoy, and that of `GET /v1/models/NAME` for names that are unknown to
    whoever asks, whoever else may know them."""
    return [answer for view in seen for answer in model_list(view.who, view.models)]


def model_list(who: list[Document], models: Sequence[str]) -> list[Document]:
    """The same for one view."""
    listing = json.dumps({"object": "list", "data": [card(model) for model in models]})
    return [
        direct(get({"path": "/v1/models"}, who), 200, listing),
        direct(with_headers({"prefix": "/v1/models/"}, who), 404, unknown(models)),
    ]


def model_card(who: list[Document], model: str) -> Document:
    """`GET /v1/models/NAME`, in the table that was chosen by that name."""
    return direct(get({"prefix": "/v1/models/"}, who), 200, json.dumps(card(model)))


def card(model: str) -> Document:
    """A model as OpenAI's API describes it."""
    return {"id": model, "object": "model", "created": 0, "owned_by": "holdfast"}


def refusals(seen: Sequence[View]) -> list[Document]:
    """Answers to requests that no service takes, most telling first."""
    kind = "invalid_request_error"
    broken = error_body("The request's body is not valid JSON.", kind, "invalid_json")
    missing = error_body("The request's body must hold the name of a model.", kind, "model_required")
    nowhere = error_body("There is nothing at this URL.", kind, "unknown_url")
    return [
        direct(of_body("problem", {"string_match": {"exact": "broken"}}), 400, broken),
        direct(of_body("problem", {"string_match": {"exact": "missing"}}), 400, missing),
        *(
            direct(with_headers(of_body("model", {"present_match": True}), view.who), 404, unknown(view.models))
            for view in seen
        ),
        direct({"prefix": "/"}, 404, nowhere),
    ]


def unreadable_timeout() -> Document:
    """The answer to a time limit that is none."""
    message = f"The header {TIMEOUT_HEADER} must be a number of seconds, such as 30 or 2.5."
    body = error_body(message, "invalid_request_error", "invalid_timeout")
    return direct({"prefix": "/v1/", "headers": [deadlines.given(), deadlines.unreadable()]}, 400, body)


def unknown(models: Sequence[str]) -> str:
    """The error about a model that is not served."""
    names = ", ".join(sorted(models)) or "none"
    message = f"This gateway does not serve that model. Models: {names}"
    return error_body(message, "invalid_request_error", "model_not_found")


def forbidden(route: Route) -> Document:
    """The answer to a tenant that may not use a model that is served."""
    body = error_body(f"This tenant may not use the model {route.model}.", "permission_error", "model_not_allowed")
    return direct(of_body("model", {"string_match": {"exact": route.model}}), 403, body)


def of_body(key: str, value: Document) -> Document:
    """Matches what was read from the body."""
    return {"prefix": "/v1/", "dynamic_metadata": [metadata(key, value)]}


def metadata(key: str, value: Document) -> Document:
    """One match of what was read from the body."""
    return {"filter": MODEL_METADATA, "path": [{"key": key}], "value": value}


def get(path: Document, who: list[Document]) -> Document:
    """Matches GET."""
    return with_headers(path, [{"name": ":method", "string_match": {"exact": "GET"}}, *who])


def with_headers(match: Document, headers: list[Document]) -> Document:
    """The match, restricted to these headers if there are any."""
    return match | ({"headers": headers} if headers else {})


def direct(match: Document, status: int, body: str) -> Document:
    """A route that Envoy answers with a JSON body."""
    return {
        "match": match,
        "direct_response": {"status": status, "body": {"inline_string": body + "\n"}},
        "response_headers_to_add": [header("content-type", "application/json")],
    }
