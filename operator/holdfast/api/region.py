"""`Region`: one Kubernetes cluster that serves, and how its gateway is reached."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

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


class RegionSpec(Schema):
    """How to reach a region and what it may do."""

    gateway: GatewayAddress
    """The region's gateway."""
    role: RegionRole = RegionRole.SERVING
    """Serving: runs engines. Witness: takes part in decisions only."""


class Region(Schema):
    """A region, as every region knows it."""

    name: str
    spec: RegionSpec
