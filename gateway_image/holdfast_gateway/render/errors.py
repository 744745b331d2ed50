"""Errors in the form that OpenAI's clients understand: of routes that answer themselves, and Envoy's own."""

from __future__ import annotations

import json
from collections.abc import Sequence

from holdfast.api.names import TENANT_HEADER
from holdfast_gateway.render.values import MODEL_METADATA, Document

OWN_ERRORS = {
    401: ("invalid_request_error", "invalid_api_key"),
    408: ("invalid_request_error", "request_timeout"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    502: ("server_error", "bad_gateway"),
    503: ("server_error", "service_unavailable"),
    504: ("server_error", "timeout"),
}
"""Status codes that Envoy itself produces → OpenAI's error type and code."""

MESSAGES = {
    401: "No valid API key or token: send it as `Authorization: Bearer KEY`, a key also in the header x-api-key.",
    408: "The request did not arrive in time.",
    413: "The request body is too large for this gateway.",
    429: "Too many requests: this tenant's limit is reached. Try again after the seconds of Retry-After.",
    502: "The engine's answer could not be read.",
    503: "No region could serve this request. Try again.",
    504: "The answer took longer than this service allows.",
}

CHALLENGE = {"header": {"key": "www-authenticate", "value": "Bearer"}, "append_action": "ADD_IF_ABSENT"}
"""What an answer 401 must say (RFC 9110, section 11.6.1)."""


def error_body(message: str, kind: str, code: str) -> str:
    """The JSON body of an error."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def local_replies(first: Sequence[Document] = ()) -> Document:
    """Gives Envoy's own errors a JSON body; says nothing about hosts, which Envoy's texts do. `first` go before."""
    return {"mappers": [*first, *(mapper(status) for status in OWN_ERRORS), unknown_tenant(), wrong_audience()]}


def mapper(status: int) -> Document:
    """The rewriting of one status code."""
    kind, code = OWN_ERRORS[status]
    made = rewriting(of_status(status), error_body(MESSAGES[status], kind, code))
    return made | ({"headers_to_add": [CHALLENGE]} if status == 401 else {})


def unknown_tenant() -> Document:
    """The refusal of those who are known by their token, but not as a tenant; routes refuse with the same status."""
    message = "This gateway does not know the tenant that your credentials name."
    noted = {"filter": MODEL_METADATA, "path": [{"key": "problem"}], "value": {"string_match": {"exact": "tenant"}}}
    found = {"metadata_filter": {"matcher": noted, "match_if_key_not_found": False}}
    return rewriting(
        {"and_filter": {"filters": [of_status(403), found]}},
        error_body(message, "permission_error", "unknown_tenant"),
    )


def wrong_audience() -> Document:
    """Envoy answers 403 to a token that is not for this gateway; that is no valid credential either."""
    unnamed = {"header_filter": {"header": {"name": TENANT_HEADER, "present_match": True, "invert_match": True}}}
    kind, code = OWN_ERRORS[401]
    made = rewriting({"and_filter": {"filters": [of_status(403), unnamed]}}, error_body(MESSAGES[401], kind, code))
    return made | {"status_code": 401, "headers_to_add": [CHALLENGE]}


def no_table(body: str) -> Document:
    """The answer 503 instead of Envoy's 404 where no route table is found: who sent it shall try another region."""
    return rewriting({"response_flag_filter": {"flags": ["NR"]}}, body) | {"status_code": 503}


def of_status(status: int) -> Document:
    """Chooses replies with this status."""
    value = {"default_value": status, "runtime_key": f"holdfast.{status}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def rewriting(chosen: Document, body: str) -> Document:
    """Another body for the chosen replies."""
    return {
        "filter": chosen,
        "body": {"inline_string": body + "\n"},
        "body_format_override": {
            "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
            "content_type": "application/json",
        },
    }
