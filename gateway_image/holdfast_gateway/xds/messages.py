"""Resources: from their JSON form, as files hold them, to what travels to Envoy."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError

from holdfast_gateway.envoy_api.messages import message, pool

CLUSTER, ENDPOINTS, TABLE, SCOPE = (
    f"type.googleapis.com/envoy.config.{name}"
    for name in (
        "cluster.v3.Cluster",
        "endpoint.v3.ClusterLoadAssignment",
        "route.v3.RouteConfiguration",
        "route.v3.ScopedRouteConfiguration",
    )
)
"""Kinds of resources, by their types' names."""

IN_ORDER = (CLUSTER, ENDPOINTS, TABLE, SCOPE)
"""What is sent first: whatever a resource names is there before it."""

WILDCARD = "*"


@dataclass(frozen=True)
class Resource:
    """One resource."""

    kind: str
    name: str
    version: str
    """The same for the same content, in every process."""
    body: Any
    """Its message, packed."""


def discovery(name: str) -> Any:
    """The class of one of the protocol's own messages. Raises KeyError."""
    return message(f"envoy.service.discovery.v3.{name}")


def resource(document: dict[str, Any]) -> Resource:
    """A resource from its JSON form. Raises ValueError, which says what is wrong with it."""
    kind, name = str(document.get("@type")), document.get("cluster_name") or document.get("name")
    if kind not in IN_ORDER or not name:
        raise ValueError(f"{kind} with the name {name!r} is none of {', '.join(IN_ORDER)}")
    try:
        body = ParseDict(document, message("google.protobuf.Any")(), descriptor_pool=pool())
    except ParseError as error:
        raise ValueError(f"{name}: {error}") from error
    return Resource(kind, str(name), blake2b(body.SerializeToString(), digest_size=12).hexdigest(), body)
