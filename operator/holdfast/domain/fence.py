"""Which plans a region acts on: never one of a leadership that was over when it was written.

A new leader first seals a region (its Lease carries the epoch) and then decides. A plan that an older leader writes
after that, because it slept or its request was long on its way, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.api.conditions import Reason
from holdfast.api.llmservice import ActedPlan
from holdfast.api.regionplan import RegionPlan
from holdfast.domain.guards import ALL_GUARDS, Guard


@dataclass(frozen=True)
class Admission:
    """Whether a plan may be acted on, and why."""

    admitted: bool
    reason: Reason
    message: str


def admit(plan: RegionPlan, sealed: int, acted: ActedPlan | None, guards: frozenset[Guard] = ALL_GUARDS) -> Admission:
    """Judge a plan; `sealed` is the epoch in this region's Lease, `acted` the plan that was acted on last."""
    spec = plan.spec
    current = Admission(
        True,
        Reason.PLANNED,
        f"The plan of epoch {spec.epoch}, decided in {spec.leader}, carries out edit {spec.number}.",
    )
    if acted and (acted.generation, acted.epoch) == (plan.generation, spec.epoch):
        return current  # nobody wrote it since
    least = max(sealed, acted.epoch if acted else 0)
    if spec.epoch >= least or Guard.SEAL not in guards:
        return current
    return Admission(
        False,
        Reason.PLAN_REFUSED,
        f"A plan of epoch {spec.epoch}, decided in {spec.leader}, came after this region was sealed with {least}: "
        "it is not acted on, and what runs stays as it is.",
    )
