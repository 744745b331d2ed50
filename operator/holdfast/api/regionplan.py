"""`RegionPlan`: all that one region must run and route for one service; written by the leader, by nobody else."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from holdfast.api.route import RevisionShare
from holdfast.api.schema import Schema


class TrafficState(StrEnum):
    """How much of its share a region gets."""

    SERVING = "Serving"
    """All of it."""
    DRAINED = "Drained"
    """None: its gateways and the others send to other regions; what runs there finishes."""
    RAMPING = "Ramping"
    """A part that grows step by step."""


class RegionTraffic(Schema):
    """What one region gets of the service's traffic, and why."""

    region: str
    """Name of the `Region`."""
    state: TrafficState = TrafficState.SERVING
    """Serving, Drained or Ramping."""
    percent: Annotated[int, Field(ge=0, le=100)] = 100
    """Part of the region's weight that it gets now."""
    weight: Annotated[int, Field(ge=0, le=1000)] = 100
    """Its weight in the service's spec."""
    revisions: tuple[RevisionShare, ...] = ()
    """How its engines share what it gets, the newest revision first; empty: all engines alike."""
    since: datetime | None = None
    """When it came to this state or step, by the clock of the leader that decided it."""
    reason: str
    """Why, in one CamelCase word that names a page under `runbooks/`."""
    message: str
    """One sentence for a person."""


class RegionPlanSpec(Schema):
    """The whole plan for one region and one service."""

    service: str
    """Name of the `LLMService`, of the same namespace as the plan."""
    region: str
    """The region that is to act on it."""
    epoch: Annotated[int, Field(ge=0)]
    """The leadership that decided it; a region refuses a plan of a smaller epoch than it is sealed with."""
    leader: str
    """The region whose operator decided it."""
    number: int
    """Number of the spec's edit that it carries out."""
    digest: str
    """Names the spec's content that it carries out."""
    revision: str
    """The (model, engine, image, arguments) to run."""
    image: str
    """The engines' container image."""
    replicas: Annotated[int, Field(ge=0)]
    """Engines to run here that take requests."""
    warm: Annotated[int, Field(ge=0)] = 0
    """Engines to run here beyond these, initialised and not routed."""
    traffic: tuple[RegionTraffic, ...]
    """Every region of the service in order of preference, the same in all its plans."""
    hold_rollout: bool = False
    """Whether engines must not be replaced now, as a region is missing."""


class RegionPlan(Schema):
    """A plan as read from an API server."""

    namespace: str
    name: str
    resource_version: str
    generation: int
    spec: RegionPlanSpec
