"""A service that stands in for another one when no region can serve that: with its own model, and openly.

An aggregate of both services' clusters lets retries walk the one's regions and then the other's. Envoy gives a request
the name of the host that it is sent to, attempt by attempt, and only hosts of a stand-in have a name: by it a peer port
knows that its own engines of the stand-in are asked, and puts that one's model into the body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast.api.route import Route
from holdfast_gateway.render.answers import direct
from holdfast_gateway.render.errors import error_body
from holdfast_gateway.render.values import (
    MODEL_HEADER,
    Document,
    header,
    http_filter,
    service_cluster,
    spare_cluster,
    typed,
)

SUFFIX = ".fallback"
FILTER = "envoy.filters.http.transform"
CONFIG = "transform.v3.TransformConfig"


def spares(routes: Sequence[Route]) -> Mapping[str, Route]:
    """Route key → the service that stands in; what names itself or nobody has none."""
    known = {route.key: route for route in routes}
    named = {route.key: f"{route.namespace}/{route.fallback}" for route in routes if route.fallback}
    return {key: known[spare] for key, spare in named.items() if spare in known and spare != key}


def is_spare(route: Route, other: Route) -> bool:
    """Whether a service stands in for another one, as `spares` says of all."""
    return other.fallback == route.service and other.namespace == route.namespace and other.service != route.service


def host_name(spare: Route) -> str:
    """The name of all hosts of a stand-in."""
    return f"{spare.service}.{spare.namespace}{SUFFIX}"


def cluster(route: Route, spare: Route) -> Document:
    """The service's regions, then those of its stand-in. Health and TLS are those of the clusters in it."""
    members = {"clusters": [service_cluster(route.key), service_cluster(spare.key)]}
    aggregate = typed("extensions.clusters.aggregate.v3.ClusterConfig", **members)
    return typed(
        "config.cluster.v3.Cluster",
        name=spare_cluster(route.key),
        connect_timeout="1s",
        lb_policy="CLUSTER_PROVIDED",
        cluster_type={"name": "envoy.clusters.aggregate", "typed_config": aggregate},
    )


def asked(spare: Route) -> Document:
    """Matches requests that a stand-in shall answer."""
    return {"name": ":authority", "string_match": {"exact": host_name(spare)}}


def not_asked() -> Document:
    """Matches all others."""
    return {"name": ":authority", "string_match": {"suffix": SUFFIX}, "invert_match": True}


def reserved() -> Document:
    """The refusal of clients that use such a name themselves."""
    match = {"prefix": "/", "headers": [{"name": ":authority", "string_match": {"suffix": SUFFIX}}]}
    return direct(
        match, 404, error_body("There is nothing at this host name.", "invalid_request_error", "unknown_host")
    )


def rewriting() -> Document:
    """The peer port's filter; it does nothing on other routes."""
    return http_filter(FILTER, CONFIG)


def in_place(made: Document, spare: Route) -> Document:
    """A route to the stand-in's engines, with its model in the request and named in the answer."""
    body = {"body_format": {"json_format": {"model": spare.model}}, "action": "MERGE"}
    config = typed(f"extensions.filters.http.{CONFIG}", request_transformation={"body_transformation": body})
    return made | {
        "typed_per_filter_config": {FILTER: config},
        "response_headers_to_add": [*made["response_headers_to_add"], header(MODEL_HEADER, spare.model)],
    }
