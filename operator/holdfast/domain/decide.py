"""The whole decision of a region on one service, in the order of the flow: accept, plan, build, compare."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.api.conditions import Reason
from holdfast.domain.accept import Verdict, accept
from holdfast.domain.changes import Apply, Change, changes
from holdfast.domain.fence import admit
from holdfast.domain.manifests import manifests
from holdfast.domain.observation import Control, Observation
from holdfast.domain.plan import Work, carry_out, is_witness, plan_alone


@dataclass(frozen=True)
class Decision:
    """What is to be done, and why."""

    verdict: Verdict
    """Whether the spec can be carried out."""
    planned: Verdict | None
    """Whether the leader's plan is acted on; None where the region plans for itself."""
    work: Work | None
    """None where nothing is to change."""
    changes: tuple[Change, ...] = ()


def decide(seen: Observation) -> Decision:
    """From an observation to the writes that it calls for."""
    verdict = accept(seen)
    if seen.control is None:
        work = plan_alone(seen) if verdict.accepted else None
        planned = None
    else:
        planned, work = _planned(seen, seen.control)
        work = work if verdict.accepted else None
    if work is None:
        return Decision(verdict, planned, None)
    wanted = changes(manifests(seen, work), seen.children)
    return Decision(verdict, planned, work, tuple(each for each in wanted if not _held(seen, work, each)))


def _planned(seen: Observation, control: Control) -> tuple[Verdict, Work | None]:
    """Whether there is a plan to act on; without one, what runs stays as it is."""
    if is_witness(seen):
        message = f"{seen.region} is a witness: it takes part in decisions and runs nothing."
        return Verdict(True, Reason.SERVED_ELSEWHERE, message), None
    if control.plan is None:
        message = "No leader has planned this service for this region yet; what runs stays as it is."
        return Verdict(False, Reason.NO_PLAN_YET, message), None
    admission = admit(control.plan, control.sealed, seen.service.status.plan)
    if not admission.admitted:
        return Verdict(False, admission.reason, admission.message), None
    plan = control.plan.spec
    if plan.digest != control.version.digest:
        message = (
            f"The plan of epoch {plan.epoch} carries out edit {plan.number}, and this region holds edit "
            f"{control.version.number}; what runs stays as it is until the leader has planned that."
        )
        return Verdict(False, Reason.PLAN_OUTDATED, message), None
    return Verdict(True, admission.reason, admission.message), carry_out(seen, plan)


def _held(seen: Observation, work: Work, change: Change) -> bool:
    """Whether a change would replace running engines while a region is missing."""
    if not (work.hold_rollout and isinstance(change, Apply) and change.ref.kind == "Deployment"):
        return False
    current = seen.children.get(change.ref)
    if current is None:
        return False
    before = current["spec"]["template"]["metadata"].get("labels", {})
    after = change.manifest["spec"]["template"]["metadata"].get("labels", {})
    return bool(before != after)
