"""What a region does with the leader's plan, and without one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from holdfast.api.conditions import ConditionType, Reason
from holdfast.api.llmservice import ActedPlan
from holdfast.api.region import RegionRole
from holdfast.api.regionplan import RegionPlan, RegionPlanSpec, RegionTraffic, TrafficState
from holdfast.api.route import RevisionShare
from holdfast.domain.changes import Apply
from holdfast.domain.decide import Decision, decide
from holdfast.domain.manifests import manifests
from holdfast.domain.observation import Control, Observation, Ref, Version
from holdfast.domain.status import status

REGIONS = ("us-east", "eu-west", "ap-south")
HELD = Version(0, 4, "d4")


def plan(percent: int = 100, generation: int = 7, **changes: Any) -> RegionPlan:
    """The plan of `us-east` for edit 4, with this part of the traffic in `eu-west`."""
    state = {0: TrafficState.DRAINED, 100: TrafficState.SERVING}.get(percent, TrafficState.RAMPING)
    traffic = tuple(
        RegionTraffic(region=name, state=state, percent=percent, reason="RegionUnhealthy", message="It fails.")
        if name == "eu-west"
        else RegionTraffic(region=name, reason="Steady", message="Whole.")
        for name in REGIONS
    )
    spec = {
        "service": "chat", "region": "us-east", "epoch": 5, "leader": "ap-south", "number": 4, "digest": "d4",
        "revision": "r1", "image": "holdfast/engine:1", "replicas": 3, "traffic": traffic, **changes,
    }  # fmt: skip
    return RegionPlan(
        namespace="default", name="chat", resource_version="1", generation=generation, spec=RegionPlanSpec(**spec)
    )


def control(**changes: Any) -> Control:
    return replace(Control(HELD, REGIONS, 3, plan(), sealed=5), **changes)


def replicas(decision: Decision) -> int:
    [deployment] = [
        each.manifest for each in decision.changes if isinstance(each, Apply) and each.manifest["kind"] == "Deployment"
    ]
    return int(deployment["spec"]["replicas"])


def test_a_region_runs_what_its_plan_says_not_what_its_copy_says(observe: Any) -> None:
    assert replicas(decide(observe(seen={"control": control()}))) == 3


def test_drains_and_ramps_of_the_plan_reach_the_route(observe: Any) -> None:
    decision = decide(observe(seen={"control": control(plan=plan(percent=25))}))

    assert decision.work is not None
    assert {each.name: each.percent for each in decision.work.targets} == {
        "us-east": 100,
        "eu-west": 25,
        "ap-south": 100,
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"plan": None}, Reason.NO_PLAN_YET),
        ({"sealed": 6}, Reason.PLAN_REFUSED),
        ({"version": Version(0, 5, "d5")}, Reason.PLAN_OUTDATED),
    ],
)
def test_without_a_plan_to_act_on_nothing_changes(observe: Any, changes: dict[str, Any], reason: Reason) -> None:
    seen = observe(seen={"control": control(**changes)})

    decision = decide(seen)

    assert decision.changes == ()
    assert decision.planned is not None
    assert decision.planned.reason is reason
    planned = next(each for each in status(seen, decision).conditions if each.type == ConditionType.PLANNED)
    assert (planned.status, planned.reason) == ("False", reason)


def test_the_status_keeps_the_plan_that_was_acted_on_last_while_a_later_one_is_refused(observe: Any) -> None:
    before = ActedPlan(epoch=6, generation=6, leader="us-east")
    seen: Observation = observe(seen={"control": control()})
    seen = replace(
        seen,
        service=seen.service.model_copy(update={"status": seen.service.status.model_copy(update={"plan": before})}),
    )

    assert status(seen, decide(seen)).plan == before


def test_a_witness_runs_nothing(observe: Any) -> None:
    seen: Observation = observe(seen={"control": control(plan=None)}, regions=[{"name": "eu-west"}])
    own = seen.regions["us-east"]
    witness = own.model_copy(update={"spec": own.spec.model_copy(update={"role": RegionRole.WITNESS})})
    seen = replace(seen, regions={**seen.regions, "us-east": witness})

    decision = decide(seen)

    assert decision.changes == ()
    assert decision.planned is not None
    assert decision.planned.accepted


def test_engines_are_not_replaced_while_a_region_is_missing_and_everything_else_is_written(observe: Any) -> None:
    running = decide(observe(seen={"control": control()})).work
    assert running is not None
    seen: Observation = observe(seen={"control": control()})
    children = {Ref.of(each): each for each in manifests(seen, running)}
    held = control(plan=plan(percent=0, revision="r2", hold_rollout=True))

    decision = decide(observe(seen={"control": held, "children": children}))

    kinds = {each.ref.kind for each in decision.changes}
    assert "Deployment" not in kinds
    assert "ConfigMap" in kinds


def test_a_warm_engine_is_promoted_by_writing_the_route_and_nothing_else(observe: Any) -> None:
    before = control(plan=plan(replicas=3, warm=1))
    running = decide(observe(seen={"control": before})).work
    assert running is not None
    children = {
        Ref.of(each.manifest): each.manifest
        for each in decide(observe(seen={"control": before})).changes
        if isinstance(each, Apply)
    }

    decision = decide(observe(seen={"control": control(plan=plan(replicas=4, warm=0)), "children": children}))

    assert running.engines == 4
    assert [each.ref.kind for each in decision.changes] == ["ConfigMap"]


def test_shares_of_the_plan_reach_the_route_and_warm_engines_stay_warm_within_their_revision(observe: Any) -> None:
    def split(**changes: Any) -> list[dict[str, Any]]:
        found = plan(**changes)
        shares = (RevisionShare(name="r1", weight=5), RevisionShare(name="r0", weight=95))
        own = [each.model_copy(update={"revisions": shares}) for each in found.spec.traffic if each.region == "us-east"]
        others = [each for each in found.spec.traffic if each.region != "us-east"]
        made = replace_traffic(found, (*own, *others))
        seen = observe(seen={"control": control(plan=made)})
        work = decide(seen).work
        assert work is not None
        [config] = [each for each in manifests(seen, work) if each["kind"] == "ConfigMap"]
        route: dict[str, Any] = json.loads(config["data"]["route.json"])
        shares_found: list[dict[str, Any]] = route["revisions"]
        return shares_found

    assert split() == [{"name": "r1", "weight": 5}, {"name": "r0", "weight": 95}]
    assert split(replicas=3, warm=1) == [{"name": "r1", "weight": 5, "routed": 3}, {"name": "r0", "weight": 95}]


def replace_traffic(found: RegionPlan, traffic: tuple[RegionTraffic, ...]) -> RegionPlan:
    return found.model_copy(update={"spec": found.spec.model_copy(update={"traffic": traffic})})


def test_an_edit_that_a_minority_holds_says_so(observe: Any) -> None:
    seen = observe(seen={"control": control(holders=("us-east",))})

    found = next(each for each in status(seen, decide(seen)).conditions if each.type == ConditionType.REPLICATED)

    assert (found.status, found.reason) == ("False", Reason.HELD_BY_MINORITY)
    assert found.message == "Only 1 of 3 regions hold edit 4: us-east."
