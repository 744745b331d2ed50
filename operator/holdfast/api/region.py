"""`Region`: one Kubernetes cluster that serves, and how its gateway is reached."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from holdfast.api.conditions import Condition
from holdfast.api.names import GATEWAY_PORT, PEER_PORT
from holdfast.api.schema import Schema

Port = Annotated[int, Field(ge=1, le=65535)]


class RegionRole(StrEnum):
    """What a region does."""

    SERVING = "Serving"
    """Runs engines and answers requests."""
    WITNESS = "Witness"
    """Runs no engines; takes part in decisions only."""


class GatewayAddress(Schema):
    """Where the gateway of a region answers."""

    address: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """IP address or host name that the gateways of the other regions and the edges can reach."""
    port: Port = GATEWAY_PORT
    """Port for clients; it forwards to other regions where needed."""
    peer_port: Port = PEER_PORT
    """Port for other regions' gateways and edges; it answers from this region's engines only."""


class KubeconfigSecret(Schema):
    """A Secret in the operator's namespace."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Name of the Secret."""
    key: Annotated[str, StringConstraints(min_length=1, max_length=253)] = "kubeconfig"
    """Key of the entry that holds the kubeconfig."""


class RegionSpec(Schema):
    """How to reach a region and what it may do."""

    gateway: GatewayAddress
    """The region's gateway."""
    kubeconfig: KubeconfigSecret | None = None
    """How the operators of the other regions reach this region's API server. Regions without one decide alone; an
    operator never uses that of its own region."""
    preference: Annotated[int, Field(ge=0, le=1000)] = 100
    """Regions of higher preference become the leader first, where several could."""
    role: RegionRole = RegionRole.SERVING
    """Serving: runs engines. Witness: takes part in decisions only."""


class Verdict(StrEnum):
    """What one observer, or the majority of them, holds of a region's service."""

    HEALTHY = "Healthy"
    """Seen answering."""
    UNHEALTHY = "Unhealthy"
    """Seen failing."""
    UNKNOWN = "Unknown"
    """Not seen: this is not the same as seen failing, and never moves traffic by itself."""


class ServiceSeen(Schema):
    """One service in one region, as the observer that writes this status sees it."""

    service: str
    """`namespace/name` of the `LLMService`."""
    verdict: Verdict
    """Healthy, Unhealthy or Unknown."""
    reason: str
    """Why, in one CamelCase word that names a page under `runbooks/`."""
    message: str | None = None
    """One sentence for a person."""


class Tombstone(Schema):
    """A service that was deleted; kept until every region has confirmed."""

    service: str
    """`namespace/name` of the `LLMService` that is gone."""
    incarnation: int = 0
    """Copies of this and earlier incarnations are deleted wherever they turn up."""
    uid: str | None = None
    """The copy that was deleted in the region that lists this; left out if there was none."""
    confirmed: bool = False
    """Whether every region was seen to list it."""


class RefusedCopy(Schema):
    """An edit made elsewhere that this region's API server does not take."""

    service: str
    """`namespace/name` of the `LLMService`."""
    message: str
    """What the API server said."""


class RegionStatus(Schema):
    """What the operator of this cluster sees of the region; for its own region also what it keeps for the others."""

    observer: str | None = None
    """The region whose operator wrote this."""
    verdict: Verdict | None = None
    """Whether the region's gateway answers this observer."""
    services: Annotated[
        tuple[ServiceSeen, ...],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["service"]}),
    ] = ()
    """Every service that this observer probes there."""
    tombstones: Annotated[
        tuple[Tombstone, ...],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["service"]}),
    ] = ()
    """Services that were deleted (own region only)."""
    refused: Annotated[
        tuple[RefusedCopy, ...],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["service"]}),
    ] = ()
    """Edits made elsewhere that this region's API server does not take (own region only)."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ] = ()
    """What is the case, and why."""


class Region(Schema):
    """A region, as every region knows it."""

    name: str
    spec: RegionSpec
    status: RegionStatus = RegionStatus()
    annotations: dict[str, str] = Field(default_factory=dict)
