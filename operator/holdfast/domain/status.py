"""The status of a service in this region, computed from what was observed and decided.

The conditions are what a person reads first: each carries a reason, which has a page under `runbooks/`, and a
sentence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from holdfast.api import names
from holdfast.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from holdfast.api.llmservice import ActedPlan, LLMServiceStatus, Replication
from holdfast.api.regionplan import TrafficState
from holdfast.api.route import Route
from holdfast.domain.decide import Decision
from holdfast.domain.manifests.metadata import engine_name, selector
from holdfast.domain.manifests.route import route_name, routed_of
from holdfast.domain.observation import Control, EnginePod, Observation, Ref
from holdfast.domain.plan import Work

NOT_YET = {
    Reason.HELD_BY_MINORITY,
    Reason.NO_PLAN_YET,
    Reason.PLAN_OUTDATED,
    Reason.NO_ENGINE_READY,
    Reason.ENGINES_MISSING,
}
"""Reasons that every service passes through when it is new."""


@dataclass(frozen=True)
class Finding:
    """What one condition is about to say."""

    type: ConditionType
    status: bool
    reason: Reason
    message: str


@dataclass(frozen=True)
class EngineCounts:
    """How many engines there are, as their Deployment reports; warm ones are among them."""

    wanted: int
    existing: int = 0
    updated: int = 0
    ready: int = 0
    routed: int | None = None
    """How many are to take requests; None: all."""

    @property
    def serving(self) -> int:
        """Ready engines that take requests; gateways choose them among the ready ones."""
        return self.ready if self.routed is None else min(self.ready, self.routed)

    @property
    def warm(self) -> int:
        """Ready engines that take none."""
        return self.ready - self.serving


def status(seen: Observation, decision: Decision, failures: Iterable[str] = ()) -> LLMServiceStatus:
    """The status to report; `failures` are sentences on writes that failed."""
    verdict, work = decision.verdict, decision.work
    counts = count_engines(seen, work)
    findings = [
        Finding(ConditionType.ACCEPTED, verdict.accepted, verdict.reason, verdict.message),
        *agreed(seen, decision),
        available(seen, work, counts),
        progressing(seen, work, counts),
        degraded(seen, counts, tuple(failures)),
    ]
    before = seen.service.status
    return LLMServiceStatus(
        observed_generation=seen.service.generation,
        region=seen.region,
        replication=replication(seen),
        plan=acted_plan(seen, decision),
        revision=work.revision if work else before.revision,
        replicas=counts.existing,
        ready_replicas=counts.serving,
        warm_replicas=counts.warm,
        selector=",".join(f"{key}={value}" for key, value in selector(seen.service).items()),
        conditions=conditions(before.conditions, seen.service.generation, seen.now, findings),
    )


def replication(seen: Observation) -> Replication | None:
    """How far the spec has come."""
    control = seen.control
    if control is None:
        return None
    before = seen.service.status.replication
    return Replication(
        number=control.version.number,
        digest=control.version.digest,
        holders=control.holders,
        majority_digest=control.version.digest if control.majority else (before.majority_digest if before else None),
    )


def acted_plan(seen: Observation, decision: Decision) -> ActedPlan | None:
    """Which plan is acted on: the last one as long as none that came since may be."""
    if seen.control is None:
        return None
    plan = seen.control.plan
    if plan is None or decision.planned is None or not decision.planned.accepted:
        return seen.service.status.plan
    return ActedPlan(epoch=plan.spec.epoch, generation=plan.generation, leader=plan.spec.leader)


def agreed(seen: Observation, decision: Decision) -> list[Finding]:
    """What the regions have agreed on; nothing where a region stands alone."""
    control, planned = seen.control, decision.planned
    if control is None or planned is None:
        return []
    return [
        replicated(seen, control),
        Finding(ConditionType.PLANNED, planned.accepted, planned.reason, planned.message),
        diverted(seen, decision),
    ]


def replicated(seen: Observation, control: Control) -> Finding:
    held = f"{len(control.holders)} of {control.voters} regions hold edit {control.version.number}"
    names = ", ".join(control.holders) or "none"
    if control.refusals:
        said = " ".join(f"{region} refuses it: {why}" for region, why in sorted(control.refusals.items()))
        return Finding(ConditionType.REPLICATED, control.majority, Reason.COPY_REFUSED, f"{held}: {names}. {said}")
    if not control.majority:
        return Finding(ConditionType.REPLICATED, False, Reason.HELD_BY_MINORITY, f"Only {held}: {names}.")
    before = next((each for each in seen.service.status.conditions if each.type == ConditionType.REPLICATED), None)
    lost = control.lost
    if not lost and before and before.reason == Reason.EDIT_REPLACED:
        lost = before.message if before.observed_generation == seen.service.generation else ""
    if lost:
        return Finding(ConditionType.REPLICATED, True, Reason.EDIT_REPLACED, lost)
    return Finding(ConditionType.REPLICATED, True, Reason.HELD_BY_MAJORITY, f"{held}: {names}.")


def diverted(seen: Observation, decision: Decision) -> Finding:
    traffic = seen.control.plan.spec.traffic if seen.control and seen.control.plan else ()
    if decision.work:
        traffic = decision.work.traffic
    for each in traffic:
        if each.reason != Reason.STEADY:
            moved = each.state is not TrafficState.SERVING
            return Finding(ConditionType.DIVERTED, moved, Reason(each.reason), each.message)
    return Finding(ConditionType.DIVERTED, False, Reason.STEADY, "Every region has its whole share of the traffic.")


def unreadable(before: LLMServiceStatus, generation: int, message: str, now: datetime) -> LLMServiceStatus:
    """The status for a spec that does not fit the types: all else stays as it was."""
    finding = Finding(ConditionType.ACCEPTED, False, Reason.SPEC_INVALID, message)
    others = tuple(each for each in before.conditions if each.type != ConditionType.ACCEPTED)
    accepted = conditions(before.conditions, generation, now, [finding])
    return before.model_copy(update={"observed_generation": generation, "conditions": (*accepted, *others)})


def count_engines(seen: Observation, work: Work | None) -> EngineCounts:
    """Counts from the engines' Deployment; a refused spec wants what already runs."""
    deployment = _deployment(seen)
    reported: dict[str, Any] = deployment.get("status", {})
    running = deployment.get("spec", {}).get("replicas", 0)
    return EngineCounts(
        wanted=work.engines if work else running,
        existing=reported.get("replicas", 0),
        updated=reported.get("updatedReplicas", 0),
        ready=reported.get("readyReplicas", 0),
        routed=routed_of(work) if work else _told(seen),
    )


def available(seen: Observation, work: Work | None, counts: EngineCounts) -> Finding:
    def finding(status: bool, reason: Reason, message: str) -> Finding:
        return Finding(ConditionType.AVAILABLE, status, reason, message)

    if counts.serving:
        kept = f", {counts.warm} more kept warm" if counts.warm else ""
        sentence = f"{_engines(counts.serving)} in {seen.region} ready to take requests{kept}."
        return finding(True, Reason.SERVING, sentence)
    if work and not work.replicas:
        others = ", ".join(target.name for target in work.targets)
        return finding(
            True, Reason.SERVED_ELSEWHERE, f"{seen.region} runs no engines; its gateway forwards to {others}."
        )
    for cause in CAUSES:
        for pod in seen.pods:
            if _ended_of(cause, pod):
                return finding(False, cause, _say_cause(cause, pod))
    return finding(False, Reason.NO_ENGINE_READY, f"No engine in {seen.region} takes requests.")


def progressing(seen: Observation, work: Work | None, counts: EngineCounts) -> Finding:
    def finding(status: bool, reason: Reason, message: str) -> Finding:
        return Finding(ConditionType.PROGRESSING, status, reason, message)

    outdated = _observed_outdated(seen, work)
    if work and counts.existing and (outdated or counts.updated < min(counts.wanted, counts.existing)):
        return finding(
            True,
            Reason.REPLACING_ENGINES,
            f"{counts.updated} of {_engines(counts.wanted)} replaced by revision {work.revision}.",
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


CAUSES = {
    Reason.MODEL_CORRUPT: "refuses its model",
    Reason.MODEL_NOT_FOUND: "finds no model",
    Reason.MODEL_UNAVAILABLE: "cannot get its model",
    Reason.GPU_OUT_OF_MEMORY: "has too little GPU memory",
    Reason.CUDA_ERROR: "met an error of its GPU",
    Reason.KILLED: "lost a process",
    Reason.ENGINE_FAILED: "failed",
}
"""Why engines end, as the first word of their last says, and how to tell it of one; what never mends itself first."""


def _ended_of(cause: Reason, pod: EnginePod) -> bool:
    return not pod.ready and pod.last_words.startswith(f"{cause}:")


def _say_cause(cause: Reason, pod: EnginePod) -> str:
    return f"Engine {pod.name} {CAUSES[cause]}: {pod.last_words.partition(':')[2].strip()}"


def _say_crashing(pod: EnginePod) -> str:
    words = f": {pod.last_words}" if pod.last_words else "."
    return (
        f"Engine {pod.name} was restarted {pod.restarts} times; it last ended with {pod.last_exit or 'no word'}{words}"
    )


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
    *((cause, partial(_ended_of, cause), partial(_say_cause, cause)) for cause in CAUSES),
    (
        Reason.ENGINE_CRASHING,
        lambda pod: pod.waiting == "CrashLoopBackOff" or pod.restarts > 2,
        _say_crashing,
    ),
)
"""What can be wrong with a single engine, the most fundamental first: reason, test, sentence."""


def transitions(before: Iterable[Condition], after: Iterable[Condition]) -> list[Condition]:
    """The conditions whose status or reason changed: each is worth one event.

    Of a service that is new, only whether it was accepted and what is wrong with it: that nothing runs yet is no news.
    """
    known = {condition.type: (condition.status, condition.reason) for condition in before}
    changed = [each for each in after if known.get(each.type) != (each.status, each.reason)]
    return [
        each
        for each in changed
        if each.type in known or each.type == ConditionType.ACCEPTED or (is_bad(each) and each.reason not in NOT_YET)
    ]


def is_bad(condition: Condition) -> bool:
    """Whether somebody should look."""
    if condition.type == ConditionType.PROGRESSING:
        return False
    worrying = condition.type in (ConditionType.DEGRADED, ConditionType.DIVERTED)
    return (condition.status == ConditionStatus.TRUE) == worrying


def _engines(count: int) -> str:
    return f"{count} engine" if count == 1 else f"{count} engines"


def _deployment(seen: Observation) -> Any:
    service = seen.service
    return seen.children.get(Ref("Deployment", service.namespace, engine_name(service)), {})


def _told(seen: Observation) -> int | None:
    """How many engines the gateways were told to route; None: all, or nothing that can be read."""
    service = seen.service
    config_map = seen.children.get(Ref("ConfigMap", service.namespace, route_name(service)), {})
    try:
        return Route.parse(json.loads(config_map["data"][names.ROUTE_KEY])).routed
    except (KeyError, TypeError, ValueError):
        return None


def _observed_outdated(seen: Observation, work: Work | None) -> bool:
    """Whether the Deployment's controller has yet to see the latest template."""
    deployment = _deployment(seen)
    if not deployment or not work:
        return False
    generation = deployment["metadata"].get("generation", 0)
    return bool(deployment.get("status", {}).get("observedGeneration", 0) < generation)


def conditions(
    before: Iterable[Condition], generation: int, now: datetime, findings: Iterable[Finding]
) -> tuple[Condition, ...]:
    """The conditions to report; each keeps its transition time while its status stays the same."""
    since = {(old.type, old.status): old.last_transition_time for old in before}
    return tuple(
        Condition(
            type=finding.type,
            status=ConditionStatus.of(finding.status),
            reason=finding.reason,
            message=finding.message,
            observed_generation=generation,
            last_transition_time=since.get((finding.type, ConditionStatus.of(finding.status)), now),
        )
        for finding in findings
    )
