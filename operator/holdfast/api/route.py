"""What a gateway must know to route one service: written by the operator, read by the gateway's agent.

The operator stores it as JSON in a ConfigMap (key `route.json`) only after it accepted the service, so a
gateway never sees a spec that was refused.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from holdfast.api.names import ENGINE_PORT, PEER_PORT
from holdfast.api.schema import Duration, Schema


class EngineProtocol(StrEnum):
    """How an engine's HTTP server is spoken to."""

    H2C = "h2c"
    """HTTP/2 without TLS, prior knowledge; keep-alive pings find a frozen engine."""
    HTTP1 = "http1"
    """HTTP/1.1; a frozen engine is found by health checks only."""


class TrafficMode(StrEnum):
    """How an edge spreads traffic over regions."""

    ACTIVE_ACTIVE = "ActiveActive"
    """All regions serve at once."""
    ACTIVE_PASSIVE = "ActivePassive"
    """The first healthy region in order of preference serves."""


class RegionTarget(Schema):
    """One region that serves the service, as seen from any gateway."""

    name: str
    address: str
    """IP address or host name of the region's gateway."""
    peer_port: int = PEER_PORT
    """Port that answers from that region's own engines only."""
    weight: int = 100
    """Share of an edge's traffic in mode ActiveActive, relative to the other regions; 0 takes the region out."""
    percent: int = 100
    """Part of its share that it gets now: 0 while it is drained, less than 100 while its traffic comes back."""


class AffinityMode(StrEnum):
    """What keeps requests together at one engine."""

    PREFIX = "Prefix"
    """The beginning of their prompts, so that the engine's prefix cache holds it."""


class Affinity(Schema):
    """Which requests a region sends to the same engine, as long as that is not busier than the others."""

    mode: AffinityMode = AffinityMode.PREFIX
    """Prefix: those whose messages or prompts begin alike."""
    prefix_bytes: Annotated[int, Field(ge=16, le=16384)] = 512
    """How many bytes of the JSON text of `messages` or `prompt` must be equal; the system prompt's length is a good
    choice."""
    max_load_percent: Annotated[int, Field(ge=101, le=1000)] = 125
    """No engine gets a further request while it has more than this part of the engines' average; others take it."""


class RevisionShare(Schema):
    """A revision's part of the requests that a region's engines get."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$", max_length=63)]
    """Value of the label `serving.holdfast.dev/revision` on the engines' Pods."""
    weight: Annotated[int, Field(ge=0, le=1000)]
    """Relative to the other revisions; 0 for none of the requests."""
    routed: Annotated[int, Field(ge=0)] | None = None
    """How many of the region's engines of this revision take requests, the others being warm; left out: all."""


class Route(Schema):
    """How one region's gateways, and the edges, route one service."""

    namespace: str
    service: str
    model: str
    """Value of the request's `model` field that selects this service."""
    region: str
    """The region whose operator wrote this route."""
    local: bool = True
    """Whether this region runs engines of the service; if not, its gateway forwards to the others."""
    engine_port: int = ENGINE_PORT
    engine_protocol: EngineProtocol = EngineProtocol.H2C
    routed: int | None = None
    """How many of this region's engines take requests, the others being warm; None: all. With `revisions` each of them
    says so itself."""
    revisions: tuple[RevisionShare, ...] = ()
    """Who answers how much, the newest revision first; engines of others answer nothing. Empty, or without any weight:
    all engines alike."""
    sticky_header: str = "x-user"
    """Request header by whose value a user stays with one revision; without it the tenant decides."""
    affinity: Affinity | None = None
    """Which requests go to the same engine of a region; None: each to an engine with few requests."""
    health_path: str = "/health"
    """Path on an engine that answers 200 exactly while it takes requests."""
    regions: tuple[RegionTarget, ...] = ()
    """Every region that serves the service, this one included, in order of preference."""
    mode: TrafficMode = TrafficMode.ACTIVE_ACTIVE
    max_stream: Duration = Field(default=timedelta(seconds=900))
    """The longest time one answer may take; the gateway cuts it after that."""
    fallback: str | None = None
    """Another service of the namespace, for requests that none of this one's regions can serve."""
    hedge_after: Duration | None = None
    """How long a request that asks for no stream waits for an answer before another region or engine is asked as well;
    None: for as long as it takes."""
    max_resumes: int = 3
    """How often one stream may be continued by another engine."""
    progress_timeout: Duration = Field(default=timedelta(seconds=4))
    """A stream to which its engine adds no token for this long is continued by another."""

    @property
    def key(self) -> str:
        """`namespace/service`, unique in a region."""
        return f"{self.namespace}/{self.service}"
