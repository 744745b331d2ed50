"""Which plans a region acts on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.api.conditions import Reason
from holdfast.api.llmservice import ActedPlan
from holdfast.api.regionplan import RegionPlan, RegionPlanSpec
from holdfast.domain.fence import admit
from holdfast.domain.guards import ALL_GUARDS, Guard


def plan(epoch: int, generation: int = 1) -> RegionPlan:
    return RegionPlan(
        namespace="default",
        name="chat",
        resource_version="1",
        generation=generation,
        spec=RegionPlanSpec(
            service="chat",
            region="us-east",
            epoch=epoch,
            leader="eu-west",
            number=3,
            digest="d",
            revision="r",
            image="i",
            replicas=1,
            traffic=(),
        ),
    )


def acted(epoch: int, generation: int) -> ActedPlan:
    return ActedPlan(epoch=epoch, generation=generation, leader="eu-west")


def test_a_plan_of_the_epoch_that_the_region_is_sealed_with_is_acted_on() -> None:
    found = admit(plan(4), sealed=4, acted=None)

    assert found.admitted
    assert found.reason == Reason.PLANNED
    assert "edit 3" in found.message


def test_a_plan_that_was_written_after_the_region_was_sealed_for_a_later_leader_is_refused() -> None:
    found = admit(plan(4, generation=8), sealed=5, acted=acted(4, 7))

    assert not found.admitted
    assert found.reason == Reason.PLAN_REFUSED
    assert "stays as it is" in found.message


def test_a_plan_that_is_acted_on_already_stays_so_when_the_region_is_sealed_anew() -> None:
    assert admit(plan(4, generation=7), sealed=5, acted=acted(4, 7)).admitted


def test_a_plan_made_anew_is_judged_although_its_generation_was_seen_before() -> None:
    assert not admit(plan(3, generation=1), sealed=5, acted=acted(4, 1)).admitted


def test_a_region_never_acts_on_a_smaller_epoch_than_before_even_if_its_lease_is_gone() -> None:
    assert not admit(plan(3, generation=9), sealed=0, acted=acted(4, 8)).admitted


@given(st.integers(0, 9), st.integers(0, 9), st.none() | st.builds(acted, st.integers(0, 9), st.integers(1, 3)))
def test_what_is_admitted_is_known_or_not_older_than_the_seal(epoch: int, sealed: int, last: ActedPlan | None) -> None:
    found = admit(plan(epoch, generation=2), sealed, last)

    known = last is not None and (last.epoch, last.generation) == (epoch, 2)
    assert found.admitted == (known or epoch >= max(sealed, last.epoch if last else 0))
    assert admit(plan(epoch, generation=2), sealed, last, ALL_GUARDS - {Guard.SEAL}).admitted
