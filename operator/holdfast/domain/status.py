"""The status of a service in this region, computed from what was observed and decided.

The conditions are what a person reads first: each carries a reason, which has a page under `runbooks/`, and a
sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from holdfast.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from holdfast.api.llmservice import LLMServiceStatus
from holdfast.domain.accept import Verdict
from holdfast.domain.manifests.metadata import engine_name, selector
from holdfast.domain.observation import EnginePod, Observation, Ref
from holdfast.domain.plan import RegionPlan


@dataclass(frozen=True)
class Finding:
    """What one condition is about to say."""

    type: ConditionType
    status: bool
    reason: Reason
    message: str


@dataclass(frozen=True)
class EngineCounts:
    """How many engines there are, as their Deployment reports."""

    wanted: int
    existing: int = 0
    updated: int = 0
    ready: int = 0


def status(
    seen: Observation, verdict: Verdict, plan: RegionPlan | None, failures: Iterable[str] = ()
) -> LLMServiceStatus:
    """The status to report. `plan` is None for a refused spec; `failures` are sentences on writes that failed."""
    counts = count_engines(seen, plan)
    findings = [
        Finding(ConditionType.ACCEPTED, verdict.accepted, verdict.reason, verdict.message),
        available(seen, plan, counts),
        progressing(seen, plan, counts),
        degraded(seen, counts, tuple(failures)),
    ]
    return LLMServiceStatus(
        observed_generation=seen.service.generation,
        region=seen.region,
        revision=plan.revision if plan else seen.service.status.revision,
        replicas=counts.existing,
        ready_replicas=counts.ready,
        selector=",".join(f"{key}={value}" for key, value in selector(seen.service).items()),
        conditions=tuple(
            _condition(seen.service.status, seen.service.generation, seen.now, finding) for finding in findings
        ),
    )


def unreadable(before: LLMServiceStatus, generation: int, message: str, now: datetime) -> LLMServiceStatus:
    """The status for a spec that does not fit the types: all else stays as it was."""
    finding = Finding(ConditionType.ACCEPTED, False, Reason.SPEC_INVALID, message)
    others = tuple(each for each in before.conditions if each.type != ConditionType.ACCEPTED)
    accepted = _condition(before, generation, now, finding)
    return before.model_copy(update={"observed_generation": generation, "conditions": (accepted, *others)})


def count_engines(seen: Observation, plan: RegionPlan | None) -> EngineCounts:
    """Counts from the engines' Deployment; a refused spec wants what already runs."""
    deployment = _deployment(seen)
    reported: dict[str, Any] = deployment.get("status", {})
    running = deployment.get("spec", {}).get("replicas", 0)
    return EngineCounts(
        wanted=plan.replicas if plan else running,
        existing=reported.get("replicas", 0),
        updated=reported.get("updatedReplicas", 0),
        ready=reported.get("readyReplicas", 0),
    )


def available(seen: Observation, plan: RegionPlan | None, counts: EngineCounts) -> Finding:
    def finding(status: bool, reason: Reason, message: str) -> Finding:
        return Finding(ConditionType.AVAILABLE, status, reason, message)

    if counts.ready:
        return finding(True, Reason.SERVING, f"{_engines(counts.ready)} in {seen.region} ready to take requests.")
    if plan and not plan.replicas:
        others = ", ".join(target.name for target in plan.targets)
        return finding(
            True, Reason.SERVED_ELSEWHERE, f"{seen.region} runs no engines; its gateway forwards to {others}."
        )
    return finding(
        False,
        Reason.NO_ENGINE_READY,
        f"No engine in {seen.region} takes requests.",
    )


def progressing(seen: Observation, plan: RegionPlan | None, counts: EngineCounts) -> Finding:
    def finding(status: bool, reason: Reason, message: str) -> Finding:
        return Finding(ConditionType.PROGRESSING, status, reason, message)

    outdated = _observed_outdated(seen, plan)
    if plan and counts.existing and (outdated or counts.updated < min(counts.wanted, counts.existing)):
        return finding(
            True,
            Reason.REPLACING_ENGINES,
            f"{counts.updated} of {_engines(counts.wanted)} replaced by revision {plan.revision}.",
        )
    if counts.ready < counts.wanted:
        return finding(
            True, Reason.STARTING_ENGINES, f"{counts.ready} of {_engines(counts.wanted)} ready to take requests."
        )
    return finding(False, Reason.SETTLED, "Every engine runs the wanted revision.")


def degraded(seen: Observation, counts: EngineCounts, failures: tuple[str, ...]) -> Finding:
    if failures:
        return Finding(ConditionType.DEGRADED, True, Reason.APPLY_FAILED, " ".join(failures))
    for reason, test, say in TROUBLES:
        for pod in seen.pods:
            if not pod.ready and test(pod):
                return Finding(ConditionType.DEGRADED, True, reason, say(pod))
    if counts.ready < counts.wanted:
        message = f"{counts.wanted - counts.ready} of {_engines(counts.wanted)} not ready yet."
        return Finding(ConditionType.DEGRADED, True, Reason.ENGINES_MISSING, message)
    message = (
        f"All {_engines(counts.wanted)} ready." if counts.wanted > 1 else "Everything that is wanted here is ready."
    )
    return Finding(ConditionType.DEGRADED, False, Reason.ALL_ENGINES_READY, message)


_IMAGE_TROUBLES = {"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName"}

TROUBLES: tuple[tuple[Reason, Callable[[EnginePod], bool], Callable[[EnginePod], str]], ...] = (
    (
        Reason.ENGINE_UNSCHEDULABLE,
        lambda pod: pod.unschedulable,
        lambda pod: f"No node takes engine {pod.name}: {pod.message}",
    ),
    (
        Reason.ENGINE_IMAGE_UNAVAILABLE,
        lambda pod: pod.waiting in _IMAGE_TROUBLES,
        lambda pod: f"The image of engine {pod.name} cannot be had ({pod.waiting}): {pod.message}",
    ),
    (
        Reason.ENGINE_CRASHING,
        lambda pod: pod.waiting == "CrashLoopBackOff" or pod.restarts > 2,
        lambda pod: (
            f"Engine {pod.name} was restarted {pod.restarts} times; it last ended with {pod.last_exit or 'no word'}."
        ),
    ),
)
"""What can be wrong with a single engine, the most fundamental first: reason, test, sentence."""


def transitions(before: Iterable[Condition], after: Iterable[Condition]) -> list[Condition]:
    """The conditions whose status or reason changed: each is worth one event."""
    known = {condition.type: (condition.status, condition.reason) for condition in before}
    return [each for each in after if known.get(each.type) != (each.status, each.reason)]


def _engines(count: int) -> str:
    return f"{count} engine" if count == 1 else f"{count} engines"


def _deployment(seen: Observation) -> Any:
    service = seen.service
    return seen.children.get(Ref("Deployment", service.namespace, engine_name(service)), {})


def _observed_outdated(seen: Observation, plan: RegionPlan | None) -> bool:
    """Whether the Deployment's controller has yet to see the latest template."""
    deployment = _deployment(seen)
    if not deployment or not plan:
        return False
    generation = deployment["metadata"].get("generation", 0)
    return bool(deployment.get("status", {}).get("observedGeneration", 0) < generation)


def _condition(before: LLMServiceStatus, generation: int, now: datetime, finding: Finding) -> Condition:
    """Keeps the transition time while the status stays the same."""
    status = ConditionStatus.of(finding.status)
    since = now
    for old in before.conditions:
        if old.type == finding.type and old.status == status:
            since = old.last_transition_time
    return Condition(
        type=finding.type,
        status=status,
        reason=finding.reason,
        message=finding.message,
        observed_generation=generation,
        last_transition_time=since,
    )
