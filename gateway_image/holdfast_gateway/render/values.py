"""Small values that several of Envoy's messages share: names, addresses, durations, typed configs."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]
"""One message of Envoy's API in its JSON form."""

REGION_HEADER = "x-holdfast-region"
"""On an answer: the region whose engines gave it."""

RECORD_HEADER = "x-holdfast-record"
"""On a request: the id of its record in the ledger, which the client port gives; no engine sees it."""

PEER_HEADER = "x-holdfast-peer"
"""On a request of the relay: the cluster of the region that it asks by name."""

MODEL_HEADER = "x-holdfast-model"
"""On an answer: the model that gave it, where that is not the one that was asked for."""

MODEL_METADATA = "holdfast"
"""Namespace of the dynamic metadata that holds what was read from a request's body."""

REVISION_METADATA = "revision"
"""Key of an engine's endpoint metadata, in the namespace `MODEL_METADATA`."""

ANY_REVISION = "*"
"""In a request's `x-holdfast-revision`: whichever, and not by share."""

GONE_HEADER = "x-holdfast-revision-gone"
"""On a refusal of a peer port: it has no engine of the revision that was asked for."""

READY_CLUSTER = "ready"
ADMIN_CLUSTER = "admin"
XDS_CLUSTER = "xds"
AGENT_CLUSTER = "agent"
COLLECTOR_CLUSTER = "collector"
READY_LISTENER = "ready"


def local_cluster(key: str, revision: str | None = None) -> str:
    """Name of the cluster of this region's engines, or of those of one revision."""
    return f"local/{key}" if revision is None else f"local/{key}/{revision}"


def kserve_cluster(key: str, revision: str | None = None) -> str:
    """Name of the cluster of this region's engines by gRPC, or of those of one revision."""
    return by_grpc(local_cluster(key, revision))


def by_grpc(cluster: str) -> str:
    """The name of a cluster of engines, made the name of the one in which they are spoken to by gRPC."""
    return f"kserve/{cluster.removeprefix('local/')}"


def service_cluster(key: str) -> str:
    """Name of the cluster of all regions' gateways."""
    return f"service/{key}"


def spare_cluster(key: str) -> str:
    """Name of the cluster of all regions' gateways, and then those of the service that stands in."""
    return f"spare/{key}"


def stream_cluster(key: str) -> str:
    """Name of the cluster of the relay, and of all regions' gateways behind it."""
    return f"stream/{key}"


def peer_cluster(region: str) -> str:
    """Name of the cluster of one region's gateway."""
    return f"peer/{region}"


def ready_path(key: str) -> str:
    """Path on a peer port that says whether that region has a healthy engine of the service."""
    return f"/ready/{key}"


def seconds(value: float) -> str:
    """A protobuf duration with a resolution of 1 ms, without needless zeros."""
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"


def typed(name: str, /, **fields: Any) -> Document:
    """A `google.protobuf.Any` of Envoy's API; `name` leaves out the package prefix that they all share."""
    return {"@type": f"type.googleapis.com/envoy.{name}", **fields}


def http_filter(name: str, message: str, /, **fields: Any) -> Document:
    """One HTTP filter."""
    return {"name": name, "typed_config": typed(f"extensions.filters.http.{message}", **fields)}


def header(name: str, value: str) -> Document:
    """A header that replaces what the other side may have sent."""
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def socket_address(address: str, port: int) -> Document:
    """A TCP address."""
    return {"socket_address": {"address": address, "port_value": port}}


def endpoint(address: Document) -> Document:
    """One host of a cluster, without a weight."""
    return {"endpoint": {"address": address}}


ADS: Document = {"resource_api_version": "V3", "ads": {}}
"""Configuration that Envoy is served by the process that started it."""


def file_source(path: str) -> Document:
    """Configuration that Envoy reads from a file and reads again whenever a new one is moved over it."""
    return {"resource_api_version": "V3", "path_config_source": {"path": path}}
