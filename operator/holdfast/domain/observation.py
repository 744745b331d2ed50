"""Everything that one decision about one service may see, gathered once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from holdfast.api.llmservice import LLMService
from holdfast.api.region import Region
from holdfast.api.regionplan import RegionPlan

Manifest = Mapping[str, Any]
"""A Kubernetes object in its JSON form."""


@dataclass(frozen=True, order=True)
class Ref:
    """Which object: kind, namespace ("" for cluster-scoped kinds) and name."""

    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, manifest: Manifest) -> Ref:
        meta = manifest["metadata"]
        return cls(manifest["kind"], meta.get("namespace", ""), meta["name"])


@dataclass(frozen=True)
class Claim:
    """Another service of this region that uses a model name."""

    service: str
    model: str
    created: str


@dataclass(frozen=True)
class EnginePod:
    """What an engine's Pod says of itself."""

    name: str
    ready: bool
    revision: str
    waiting: str = ""
    """Reason why its container does not run, for example `ImagePullBackOff`."""
    message: str = ""
    """The kubelet's or scheduler's words on what is wrong."""
    unschedulable: bool = False
    restarts: int = 0
    last_exit: str = ""
    """How its container last ended, for example `OOMKilled` or `Error (1)`."""
    last_words: str = ""
    """The termination message that its container last left."""


@dataclass(frozen=True)
class Capabilities:
    """What the cluster can do, as far as decisions depend on it."""

    pod_disruption_budget: str | None = "policy/v1"
    """Served version of PodDisruptionBudget; None where there is none."""


@dataclass(frozen=True)
class Telemetry:
    """How engines tell of themselves; what is not said is left to the engines' own defaults."""

    endpoint: str = ""
    """Where they send spans; empty for nowhere."""
    sampling: float = 1.0
    """Percent of the traces that begin at an engine."""
    log_format: str = "text"


@dataclass(frozen=True, order=True)
class Version:
    """An edit of a service. A later incarnation wins, then the higher number, then the greater digest."""

    incarnation: int
    number: int
    digest: str


@dataclass(frozen=True)
class Control:
    """What the regions have agreed on about a service, as far as this one knows."""

    version: Version
    """The edit that this region holds."""
    holders: tuple[str, ...]
    """Regions that are seen to hold the same."""
    voters: int
    """Regions that a majority is counted of."""
    plan: RegionPlan | None = None
    """The leader's plan for this region."""
    sealed: int = 0
    """The epoch that this region is sealed with."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Region whose API server does not take the edit → what it said."""
    lost: str = ""
    """A sentence on an edit made here that was replaced; empty if none was."""

    @property
    def majority(self) -> bool:
        """Whether more than half of the voters hold the edit."""
        return len(self.holders) > self.voters // 2


@dataclass(frozen=True)
class Observation:
    """The state of one service in one region at one moment."""

    now: datetime
    region: str
    """The region that this operator runs in."""
    service: LLMService
    regions: Mapping[str, Region]
    """Every `Region` this cluster knows, by name."""
    engine_images: Mapping[str, str]
    """Default image by engine type."""
    image_pull_policy: str = "IfNotPresent"
    telemetry: Telemetry = Telemetry()
    capabilities: Capabilities = Capabilities()
    claims: tuple[Claim, ...] = ()
    """Model names of the other services of this region."""
    children: Mapping[Ref, Manifest] = field(default_factory=dict)
    """Objects that Holdfast made for this service, as they are now."""
    pods: tuple[EnginePod, ...] = ()
    control: Control | None = None
    """None where the region stands alone and plans for itself."""
