"""`LLMService`: one language model, served in several regions.

The classes are the single source of the CRD: field docstrings become its descriptions, defaults its defaults,
and `x-kubernetes-validations` its CEL rules. What a schema cannot say is checked in `domain/accept.py`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints

from holdfast.api.conditions import Condition
from holdfast.api.route import Affinity, TrafficMode
from holdfast.api.schema import DnsLabel, Duration, Schema

OpenObject = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
"""An object of Kubernetes' own API that is passed through as it is."""

Quantity = Annotated[
    str | int,
    Field(json_schema_extra={"x-kubernetes-int-or-string": True}),
]


def cel(rule: str, message: str) -> dict[str, Any]:
    """Schema extra that makes API servers from 1.25 on refuse objects for which `rule` (CEL) is false."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message}]}


class Model(Schema):
    """The model, and where engines load it from."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9][-A-Za-z0-9._:/]*$")]
    """The name that clients put into the request's `model` field."""
    source: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+://.+$")]
    """Where the weights are: `file:///path` in the engine's image, `pvc://claim/path` on a volume claim of the
    namespace, `hf://organisation/name`, `s3://bucket/prefix` or `oci://registry/repository:tag`."""
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Digest of the model's file or directory, as `holdfast-engine digest` prints it: the engine compares it before
    loading and never serves another content."""
    max_model_len: Annotated[int, Field(ge=1)] | None = None
    """Longest prompt plus answer, in tokens; the model's own limit if left out."""


class Parallelism(Schema):
    """How one replica spreads over accelerators."""

    tensor: Annotated[int, Field(ge=1)] = 1
    """Tensor-parallel size."""
    pipeline: Annotated[int, Field(ge=1)] = 1
    """Pipeline-parallel size."""


class Gpu(Schema):
    """The accelerators of one replica."""

    type: Annotated[str, StringConstraints(min_length=1)] = "nvidia.com/gpu"
    """Extended resource that the node's device plug-in offers."""
    per_replica: Annotated[int, Field(ge=0)] = 1
    """Accelerators of each replica; 0 for engines that run on CPUs."""


class Resources(Schema):
    """CPU and memory of one engine, in Kubernetes' quantities."""

    requests: dict[str, Quantity] = Field(default_factory=dict)
    """What a replica is guaranteed, by resource name."""
    limits: dict[str, Quantity] = Field(default_factory=dict)
    """What a replica may use at most, by resource name."""


class Engine(Schema):
    """The engine that generates tokens."""

    type: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
    """`vllm`, `triton` or `openvino` (CPU)."""
    image: str | None = None
    """Container image with Holdfast's shim in it; the operator's default for the type if left out."""
    args: tuple[str, ...] = ()
    """Arguments appended to those that Holdfast gives the engine: of vLLM's server, of Triton's, or of the CPU
    engine."""
    env: tuple[OpenObject, ...] = ()
    """Environment of the engine's container, as in a Pod."""
    parallelism: Parallelism = Parallelism()
    """How one replica spreads over accelerators."""
    gpu: Gpu = Gpu()
    """The accelerators of one replica."""
    resources: Resources | None = None
    """CPU and memory of one replica."""
    node_selector: dict[str, str] | None = None
    """Labels of the nodes that engines may run on."""
    tolerations: tuple[OpenObject, ...] = ()
    """Taints that engines tolerate, as in a Pod."""
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets with registry credentials, in the service's namespace."""


class Replicas(Schema):
    """How many engines a region runs."""

    model_config = ConfigDict(
        json_schema_extra=cel("!has(self.max) || self.max >= self.min", "replicas.max is smaller than replicas.min")
    )

    min: Annotated[int, Field(ge=0)] = 1
    """Engines that always take requests."""
    max: Annotated[int, Field(ge=1)] | None = None
    """Engines that may take requests at most when capacity is asked for; `min` plus the warm ones if left out."""


class ReplicasOverride(Schema):
    """Replicas of one region where they differ from the defaults."""

    min: Annotated[int, Field(ge=0)] | None = None
    """Engines that always take requests in this region."""
    max: Annotated[int, Field(ge=1)] | None = None
    """Engines that may take requests at most in this region."""


class Defaults(Schema):
    """What every region gets that does not say otherwise."""

    replicas: Replicas = Replicas()
    """Engines per region."""
    warm: Annotated[int, Field(ge=0)] = 0
    """Engines per region beyond its replicas that are initialised and take no requests until they stand in: for an
    engine of their region that is lost, or for another region's engines, up to `replicas.max`. Regions with
    `replicas.min` 0 keep none."""


class ServiceRegion(Schema):
    """One region that serves."""

    name: DnsLabel
    """Name of a `Region`."""
    replicas: ReplicasOverride | None = None
    """Engines of this region where they differ from `defaults`."""
    warm: Annotated[int, Field(ge=0)] | None = None
    """Warm engines of this region where they differ from `defaults`."""
    weight: Annotated[int, Field(ge=0, le=1000)] = 100
    """Share of an edge's traffic in mode ActiveActive, relative to the other regions. At 0 no traffic is sent to the
    region from outside; its engines go on running."""


class Fallback(Schema):
    """Who answers when no region can."""

    service: DnsLabel
    """Another `LLMService` of the same namespace; its model answers, and the header `x-holdfast-model` says so."""


RESERVED_HEADERS = "(?i)^(x-holdfast-.*|x-envoy-.*|authorization|x-api-key|api-key)$"
"""Headers that gateways set, or hide from what comes behind them."""
FREE_HEADER = cel(
    f"!self.matches('{RESERVED_HEADERS}')", "this header is the gateway's own, or a credential; choose another"
)


class Traffic(Schema):
    """How requests reach engines."""

    mode: TrafficMode = TrafficMode.ACTIVE_ACTIVE
    """ActiveActive: edges spread over all regions by weight. ActivePassive: the first healthy region serves."""
    max_stream: Duration = timedelta(seconds=900)
    """The longest time one answer may take; also how long an engine that is told to stop may finish what it runs."""
    max_resumes: Annotated[int, Field(ge=0, le=100)] = 3
    """How often one stream may be continued by another engine when the one that generates it is lost; 0: never."""
    sticky_header: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z][-A-Za-z0-9]*$", max_length=100), Field(json_schema_extra=FREE_HEADER)
    ] = "x-user"
    """Request header that names the user: while several revisions answer, a user stays with one of them. Requests
    without it stay together by their tenant; those without either are spread by chance."""
    hedge_after: Duration | None = None
    """Requests that ask for no stream and have no answer after this time are asked a second time, of another region or
    engine; the first answer counts and the other work is cancelled. Left out: never. Choose about the time within which
    95 of 100 answers are complete: slow answers then cost double the work, and more with each further such time.
    Excludes `fallback`."""
    affinity: Affinity | None = None
    """Which requests go to the same engine of a region; left out: each to an engine with few requests."""
    fallback: Fallback | None = None
    """Another service for requests that none of this one's regions can serve; left out: they fail."""


class Failback(Schema):
    """How traffic comes back to a region that is healthy again."""

    steps: Annotated[tuple[Annotated[int, Field(ge=1, le=100)], ...], Field(min_length=1, max_length=20)] = (
        5,
        25,
        50,
        100,
    )
    """Percent of the region's weight, one step after the other; the last is taken as 100."""
    hold: Duration = timedelta(seconds=30)
    """How long each step must stay healthy before the next."""


class Failover(Schema):
    """When traffic leaves a region, and when it returns."""

    unhealthy_after: Duration = timedelta(seconds=2)
    """How long an observer must see a region fail before it calls it Unhealthy."""
    healthy_after: Duration = timedelta(seconds=10)
    """How long an observer must see a region answer before it calls it Healthy again."""
    progress_timeout: Duration = timedelta(seconds=4)
    """Engines that have requests and generate no token for longer, or none for an observer's own request, are failing.
    Longer than the engines need to read the longest prompt that comes alone."""
    max_error_rate: Annotated[float, Field(ge=0.01, le=1)] = 0.5
    """A region fails when this part of its users' requests of the last 10 s was answered with an error (5xx)."""
    max_drained_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    """At most this part of the service's regions is drained at any time, rounded down; and never the last one."""
    failback: Failback = Failback()
    """How traffic comes back."""


class LLMServiceSpec(Schema):
    """What to serve, where, and how."""

    model: Model
    """The model, and where engines load it from."""
    engine: Engine
    """The engine that generates tokens."""
    defaults: Defaults = Defaults()
    """What every region gets that does not say otherwise."""
    regions: Annotated[
        tuple[ServiceRegion, ...],
        Field(
            min_length=1,
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    """The regions that serve, in order of preference."""
    traffic: Traffic = Traffic()
    """How requests reach engines."""
    failover: Failover = Failover()
    """When traffic leaves a region, and when it returns."""


class Replication(Schema):
    """How far the spec has come."""

    number: int
    """Number of the edit that this region holds; higher ones win."""
    digest: str
    """Names the spec's content."""
    holders: tuple[str, ...] = ()
    """Regions that hold the same edit, as far as they can be seen."""
    majority_digest: str | None = None
    """Names the content that a majority was last seen to hold."""


class ActedPlan(Schema):
    """Which `RegionPlan` a region acts on."""

    epoch: int
    """Its epoch."""
    generation: int
    """Its `metadata.generation`."""
    leader: str
    """The region whose operator wrote it."""


class LLMServiceStatus(Schema):
    """What the operator of this region sees."""

    observed_generation: int | None = None
    """The generation of the spec that the rest of the status speaks about."""
    region: str | None = None
    """The region whose operator wrote this."""
    replication: Replication | None = None
    """How far the spec has come; nothing where the region stands alone."""
    plan: ActedPlan | None = None
    """The leader's plan that this region acts on; nothing where it plans for itself."""
    revision: str | None = None
    """Name of the (model, engine, image, arguments) that this region is to run."""
    replicas: int | None = None
    """Engines that exist in this region."""
    ready_replicas: int | None = None
    """Engines in this region that take requests."""
    warm_replicas: int = 0
    """Engines in this region that could take requests and are kept warm."""
    selector: str | None = None
    """Label selector of the engines' Pods."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ] = ()
    """What is the case, and why."""


class LLMService(Schema):
    """A service as read from an API server: its identity, spec and last status."""

    namespace: str
    name: str
    uid: str
    generation: int
    created: str
    """Creation time, RFC 3339; orders services that claim the same thing."""
    spec: LLMServiceSpec
    status: LLMServiceStatus = LLMServiceStatus()
