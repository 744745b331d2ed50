"""The whole decision on one service, in the order of the flow: accept, plan, build, compare."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.domain.accept import Verdict, accept
from holdfast.domain.changes import Change, changes
from holdfast.domain.manifests import manifests
from holdfast.domain.observation import Observation
from holdfast.domain.plan import RegionPlan, plan


@dataclass(frozen=True)
class Decision:
    """What is to be done, and why."""

    verdict: Verdict
    plan: RegionPlan | None
    """None where the spec was refused; then nothing changes."""
    changes: tuple[Change, ...] = ()


def decide(seen: Observation) -> Decision:
    """From an observation to the writes that it calls for."""
    verdict = accept(seen)
    if not verdict.accepted:
        return Decision(verdict, None)
    planned = plan(seen)
    return Decision(verdict, planned, tuple(changes(manifests(seen, planned), seen.children)))
