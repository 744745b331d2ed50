"""Envoy's messages: from their JSON form, as files hold them, to what travels to Envoy."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

# Each import makes a message known by its type's name.
import envoy.config.cluster.v3.cluster_pb2
import envoy.config.endpoint.v3.endpoint_pb2
import envoy.config.route.v3.route_pb2
import envoy.config.route.v3.scoped_route_pb2
import envoy.extensions.clusters.aggregate.v3.cluster_pb2
import envoy.extensions.filters.http.cors.v3.cors_pb2
import envoy.extensions.filters.http.lua.v3.lua_pb2
import envoy.extensions.filters.http.transform.v3.transform_pb2
import envoy.extensions.load_balancing_policies.maglev.v3.maglev_pb2
import envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2
import envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config_pb2
import envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2
import envoy.extensions.transport_sockets.tls.v3.tls_pb2
import envoy.extensions.upstreams.http.v3.http_protocol_options_pb2  # noqa: F401
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from envoy.service.discovery.v3.discovery_pb2 import Resource as Sent
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.json_format import ParseDict, ParseError

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

__all__ = ["DeltaDiscoveryRequest", "DeltaDiscoveryResponse", "Sent"]


@dataclass(frozen=True)
class Resource:
    """One resource."""

    kind: str
    name: str
    version: str
    """The same for the same content, in every process."""
    body: Packed


def resource(document: dict[str, Any]) -> Resource:
    """A resource from its JSON form. Raises ValueError, which says what is wrong with it."""
    kind, name = str(document.get("@type")), document.get("cluster_name") or document.get("name")
    if kind not in IN_ORDER or not name:
        raise ValueError(f"{kind} with the name {name!r} is none of {', '.join(IN_ORDER)}")
    try:
        body = ParseDict(document, Packed())
    except ParseError as error:
        raise ValueError(f"{name}: {error}") from error
    return Resource(kind, str(name), blake2b(body.SerializeToString(), digest_size=12).hexdigest(), body)
