"""Conditions of a service, and every reason a condition or event can carry.

Each reason has a page of its name under `runbooks/`, which tells what it means and what to do.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from holdfast.api.schema import Schema


class ConditionType(StrEnum):
    """What a condition speaks about."""

    ACCEPTED = "Accepted"
    """The spec can be carried out; while it is not, what runs stays as it is."""
    REPLICATED = "Replicated"
    """A majority of the regions holds the spec."""
    PLANNED = "Planned"
    """The leader's plan for this region carries out the spec."""
    DIVERTED = "Diverted"
    """Some region gets less than its share of the traffic."""
    AVAILABLE = "Available"
    """At least one engine of this region takes requests."""
    PROGRESSING = "Progressing"
    """Engines are being started or replaced."""
    DEGRADED = "Degraded"
    """Less runs than was asked for."""
    REACHABLE = "Reachable"
    """Of a `Region`: the operator of this cluster can work with the region's API server."""
    QUORUM = "Quorum"
    """Of the own `Region`: a majority of the voters answers this operator."""


class ConditionStatus(StrEnum):
    """Whether what the condition's type says is the case."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"

    @classmethod
    def of(cls, value: bool) -> ConditionStatus:
        """The status of something that is known."""
        return cls.TRUE if value else cls.FALSE


class Reason(StrEnum):
    """Why a condition has its status."""

    ACCEPTED = "SpecAccepted"

    SPEC_INVALID = "SpecInvalid"
    NAME_UNUSABLE = "NameUnusable"
    UNKNOWN_ENGINE = "UnknownEngine"
    UNKNOWN_REGION = "UnknownRegion"
    REGION_NOT_SERVING = "RegionNotServing"
    REPLICAS_OUT_OF_RANGE = "ReplicasOutOfRange"
    TRAFFIC_UNUSABLE = "TrafficUnusable"
    MODEL_SOURCE_UNSUPPORTED = "ModelSourceUnsupported"
    ENGINE_IMAGE_MISSING = "EngineImageMissing"
    GPU_MISMATCH = "GpuMismatch"
    MODEL_NAME_TAKEN = "ModelNameTaken"

    HELD_BY_MAJORITY = "HeldByMajority"
    HELD_BY_MINORITY = "HeldByMinority"
    EDIT_REPLACED = "EditReplaced"
    DELETED_ELSEWHERE = "DeletedElsewhere"
    COPY_REFUSED = "CopyRefused"

    PLANNED = "PlanCurrent"
    PLAN_OUTDATED = "PlanOutdated"
    NO_PLAN_YET = "NoPlanYet"
    PLAN_REFUSED = "PlanRefused"

    ANSWERING = "Answering"
    NOT_SEEN_YET = "NotSeenYet"
    OBSERVER_BLIND = "ObserverBlind"
    GATEWAY_UNREACHABLE = "GatewayUnreachable"
    NO_ENGINE_ANSWERS = "NoEngineAnswers"
    NO_PROGRESS = "NoProgress"
    REQUESTS_FAIL = "RequestsFail"

    STEADY = "Steady"
    REGION_UNHEALTHY = "RegionUnhealthy"
    DRAIN_REQUESTED = "DrainRequested"
    DRAIN_REFUSED = "DrainRefused"
    TRAFFIC_STAYS = "TrafficStays"
    RAMPING_BACK = "RampingBack"
    RAMP_WORSENED = "RampWorsened"

    PEER_REACHED = "PeerReached"
    PEER_UNREACHABLE = "PeerUnreachable"
    KUBECONFIG_MISSING = "KubeconfigMissing"
    KUBECONFIG_INVALID = "KubeconfigInvalid"
    PEER_REFUSES = "PeerRefuses"
    SAME_CLUSTER = "SameCluster"
    PEER_UNINTELLIGIBLE = "PeerUnintelligible"
    QUORUM_REACHED = "QuorumReached"
    QUORUM_LOST = "QuorumLost"
    VOTERS_EVEN = "VotersEven"

    SERVING = "Serving"
    NO_ENGINE_READY = "NoEngineReady"
    SERVED_ELSEWHERE = "ServedElsewhere"

    SETTLED = "Settled"
    STARTING_ENGINES = "StartingEngines"
    REPLACING_ENGINES = "ReplacingEngines"

    ALL_ENGINES_READY = "AllEnginesReady"
    ENGINES_MISSING = "EnginesMissing"
    ENGINE_UNSCHEDULABLE = "EngineUnschedulable"
    ENGINE_IMAGE_UNAVAILABLE = "EngineImageUnavailable"
    MODEL_CORRUPT = "ModelCorrupt"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_UNAVAILABLE = "ModelUnavailable"
    GPU_OUT_OF_MEMORY = "GpuOutOfMemory"
    CUDA_ERROR = "CudaError"
    KILLED = "Killed"
    ENGINE_FAILED = "EngineFailed"
    ENGINE_CRASHING = "EngineCrashing"
    APPLY_FAILED = "ApplyFailed"


class Condition(Schema):
    """One observation about a service, as in Kubernetes' API conventions (metav1.Condition)."""

    type: str
    """A `ConditionType`; types of a newer operator are kept as they are."""
    status: ConditionStatus
    """Whether it is the case."""
    reason: str
    """Why, in one CamelCase word that names a page under `runbooks/`."""
    message: str
    """One sentence that says what is the case and, where it is bad, what to do."""
    observed_generation: int
    """The generation of the spec that this was decided for."""
    last_transition_time: datetime
    """When the status last changed (UTC); other changes leave it alone."""
