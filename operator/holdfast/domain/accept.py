"""Can this spec be carried out at all? A named chain of checks; the first that objects decides.

A refused spec changes nothing that runs: the region keeps to what it accepted before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from holdfast.api.conditions import Reason
from holdfast.api.llmservice import RESERVED_HEADERS
from holdfast.api.region import RegionRole
from holdfast.api.schema import format_duration
from holdfast.domain.engines import ENGINES, SOURCES
from holdfast.domain.observation import Observation
from holdfast.domain.replicas import replicas_of

SOONEST_HEDGE = timedelta(milliseconds=50)
MAX_NAME = 50
"""Longest service name, in characters: its children's names and labels must stay within 63."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of a decision: its reason and one sentence for a person."""

    accepted: bool
    reason: Reason
    message: str


Check = Callable[[Observation], Verdict | None]


def accept(seen: Observation) -> Verdict:
    """Whether the service's spec can be carried out in this region, and if not, why."""
    for check in CHECKS:
        if verdict := check(seen):
            return verdict
    return Verdict(True, Reason.ACCEPTED, "The spec can be carried out.")


def _refuse(reason: Reason, message: str) -> Verdict:
    return Verdict(False, reason, message)


def name_is_usable(seen: Observation) -> Verdict | None:
    name = seen.service.name
    if len(name) <= MAX_NAME and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        return None
    return _refuse(
        Reason.NAME_UNUSABLE,
        f"The name {name!r} cannot name a Service: use at most {MAX_NAME} lower-case letters, digits and '-', "
        "starting with a letter.",
    )


def engine_is_known(seen: Observation) -> Verdict | None:
    engine = seen.service.spec.engine.type
    if engine in ENGINES:
        return None
    return _refuse(Reason.UNKNOWN_ENGINE, f"There is no engine {engine!r}; use one of: {', '.join(sorted(ENGINES))}.")


def image_is_known(seen: Observation) -> Verdict | None:
    engine = seen.service.spec.engine
    if engine.image or seen.engine_images.get(engine.type):
        return None
    return _refuse(
        Reason.ENGINE_IMAGE_MISSING,
        f"The operator has no default image for engine {engine.type!r}: set spec.engine.image, or engines."
        f"{engine.type}.image in the chart's values.",
    )


def model_source_is_supported(seen: Observation) -> Verdict | None:
    scheme = seen.service.spec.model.source.partition("://")[0]
    if scheme in SOURCES:
        return None
    known = ", ".join(f"{each}://" for each in SOURCES)
    return _refuse(Reason.MODEL_SOURCE_UNSUPPORTED, f"No engine can load a model from {scheme}://; they take {known}.")


def accelerators_fit(seen: Observation) -> Verdict | None:
    engine = seen.service.spec.engine
    wanted = engine.parallelism.tensor * engine.parallelism.pipeline
    gpus = engine.gpu.per_replica
    if not ENGINES[engine.type].on_gpu:
        if wanted == 1:
            return None
        return _refuse(
            Reason.GPU_MISMATCH,
            f"Engine {engine.type!r} runs on one CPU host: leave parallelism.tensor and parallelism.pipeline at 1.",
        )
    if gpus == wanted:
        return None
    return _refuse(
        Reason.GPU_MISMATCH,
        f"tensor {engine.parallelism.tensor} × pipeline {engine.parallelism.pipeline} needs {wanted} accelerators, "
        f"but gpu.perReplica is {gpus}: make them equal.",
    )


def regions_exist(seen: Observation) -> Verdict | None:
    named = [region.name for region in seen.service.spec.regions]
    if missing := [name for name in named if name not in seen.regions]:
        known = ", ".join(sorted(seen.regions)) or "none"
        return _refuse(
            Reason.UNKNOWN_REGION,
            f"No Region object names {', '.join(missing)}; this cluster knows: {known}.",
        )
    witnesses = [name for name in named if seen.regions[name].spec.role is not RegionRole.SERVING]
    if not witnesses:
        return None
    return _refuse(
        Reason.REGION_NOT_SERVING,
        f"Region {', '.join(witnesses)} is a witness and runs no engines: leave it out of "
        "spec.regions, or change its role.",
    )


def replicas_are_in_range(seen: Observation) -> Verdict | None:
    for region in seen.service.spec.regions:
        low, high = replicas_of(seen.service.spec, region)
        if low > high:
            return _refuse(
                Reason.REPLICAS_OUT_OF_RANGE,
                f"Region {region.name} is asked for at least {low} and at most {high} replicas: raise replicas.max or "
                "lower replicas.min.",
            )
        if region.warm and not low:
            return _refuse(
                Reason.REPLICAS_OUT_OF_RANGE,
                f"Region {region.name} is asked for {region.warm} warm and no other engines: without replicas it gets "
                "no traffic, and nothing would be promoted; raise replicas.min or leave warm out.",
            )
    if any(replicas_of(seen.service.spec, region)[0] for region in seen.service.spec.regions):
        return None
    return _refuse(
        Reason.REPLICAS_OUT_OF_RANGE,
        "No region runs a single replica: set replicas.min to 1 or more in one of them.",
    )


def traffic_is_consistent(seen: Observation) -> Verdict | None:
    traffic = seen.service.spec.traffic
    if traffic.hedge_after is not None and not SOONEST_HEDGE <= traffic.hedge_after < traffic.max_stream:
        return _refuse(
            Reason.TRAFFIC_UNUSABLE,
            f"traffic.hedgeAfter is {format_duration(traffic.hedge_after)}: make it at least "
            f"{format_duration(SOONEST_HEDGE)} and less than maxStream, {format_duration(traffic.max_stream)}.",
        )
    if traffic.hedge_after is not None and traffic.fallback is not None:
        return _refuse(
            Reason.TRAFFIC_UNUSABLE,
            "traffic.hedgeAfter and traffic.fallback exclude each other, as another model would answer what is merely "
            "slow: leave one of them out.",
        )
    sticky = traffic.sticky_header
    if re.match(RESERVED_HEADERS, sticky):
        return _refuse(
            Reason.TRAFFIC_UNUSABLE,
            f"traffic.stickyHeader is {sticky!r}, which is the gateway's own header or a credential: name one by which "
            "clients tell their users apart, such as x-user.",
        )
    return None


def model_name_is_free(seen: Observation) -> Verdict | None:
    own = seen.service
    mine = (own.created, f"{own.namespace}/{own.name}")
    for claim in seen.claims:
        if claim.model == own.spec.model.name and (claim.created, claim.service) < mine:
            return _refuse(
                Reason.MODEL_NAME_TAKEN,
                f"Service {claim.service} already serves the model name {claim.model!r} and is older: "
                "choose another model.name or delete one of the two.",
            )
    return None


CHECKS: tuple[Check, ...] = (
    name_is_usable,
    engine_is_known,
    image_is_known,
    model_source_is_supported,
    accelerators_fit,
    regions_exist,
    replicas_are_in_range,
    traffic_is_consistent,
    model_name_is_free,
)
