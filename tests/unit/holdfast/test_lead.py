"""The leader's whole decision on one service."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast.api.conditions import Reason
from holdfast.api.llmservice import LLMServiceSpec
from holdfast.api.region import Region, RegionSpec, Verdict
from holdfast.api.regionplan import RegionPlan, RegionPlanSpec, TrafficState
from holdfast.domain.health import Judgement
from holdfast.domain.lead import Leading, Service, last_traffic, lead
from holdfast.domain.observation import Version

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("us-east", "eu-west", "ap-south")


def regions(witness: str = "") -> dict[str, Region]:
    return {
        name: Region(
            name=name,
            spec=RegionSpec.parse({"gateway": {"address": name}, "role": "Witness" if name == witness else "Serving"}),
        )
        for name in NAMES
    }


def service(
    plans: Mapping[str, RegionPlan] | None = None,
    health: Mapping[str, Verdict] | None = None,
    names: tuple[str, ...] = NAMES,
    **changes: Any,
) -> Service:
    spec: dict[str, Any] = {
        "model": {"name": "m", "source": "file:///m"},
        "engine": {"type": "openvino"},
        "defaults": {"replicas": {"min": 2, "max": 4}},
        "regions": [{"name": name} for name in names],
    }
    judged = {name: Judgement(verdict, Reason.NO_PROGRESS, "It hangs.") for name, verdict in (health or {}).items()}
    fields: dict[str, Any] = {
        "now": NOW,
        "region": "us-east",
        "epoch": 4,
        "name": "chat",
        "version": Version(0, 7, "d7"),
        "spec": LLMServiceSpec.parse(spec),
        "regions": regions(),
        "engine_images": {"openvino": "engine:1"},
        "plans": plans or {},
        "health": judged,
    }
    return Service(**{**fields, **changes})


def written(decided: Leading, names: tuple[str, ...] = NAMES, **changes: Any) -> dict[str, RegionPlan]:
    """The plans as they are read once they were written in some regions."""
    return {
        name: RegionPlan(
            namespace="default",
            name="chat",
            resource_version="1",
            generation=1,
            spec=decided.plans[name].model_copy(update=changes),
        )
        for name in names
    }


def test_every_serving_region_gets_the_whole_plan_of_this_epoch_and_edit() -> None:
    decided = lead(service())

    assert sorted(decided.plans) == sorted(NAMES)
    plan = decided.plans["eu-west"]
    assert (plan.epoch, plan.leader, plan.number, plan.digest) == (4, "us-east", 7, "d7")
    assert (plan.region, plan.replicas, plan.image) == ("eu-west", 2, "engine:1")
    assert len({each.traffic for each in decided.plans.values()}) == 1
    assert decided.changed == ()
    assert decided.again is None
    assert not plan.hold_rollout


def test_a_witness_gets_no_plan_and_a_region_that_the_service_leaves_out_one_without_engines() -> None:
    assert "ap-south" not in lead(service(regions=regions("ap-south"), names=NAMES[:2])).plans
    assert lead(service(names=NAMES[:2])).plans["ap-south"].replicas == 0


def test_a_failing_region_is_drained_in_every_plan_and_its_engines_are_found_elsewhere() -> None:
    decided = lead(service(health={"us-east": Verdict.UNHEALTHY}))

    assert [each.region for each in decided.changed] == ["us-east"]
    assert {name: plan.replicas for name, plan in decided.plans.items()} == {"us-east": 2, "eu-west": 3, "ap-south": 3}
    assert all(plan.hold_rollout for plan in decided.plans.values())
    assert decided.plans["ap-south"].traffic[0].state is TrafficState.DRAINED


def test_warm_engines_are_in_every_plan_and_are_promoted_for_those_of_a_region_that_fails() -> None:
    spec = service().spec
    warm = spec.model_copy(update={"defaults": spec.defaults.model_copy(update={"warm": 1})})

    usual = lead(service(spec=warm, names=NAMES[:2])).plans
    without = lead(service(health={"us-east": Verdict.UNHEALTHY}, spec=warm)).plans

    assert {name: (plan.replicas, plan.warm) for name, plan in usual.items()} == dict.fromkeys(NAMES, (2, 1))
    assert {name: (plan.replicas, plan.warm) for name, plan in without.items()} == {
        "us-east": (2, 1), "eu-west": (3, 0), "ap-south": (3, 0),
    }  # fmt: skip


def test_deciding_again_on_what_was_written_changes_nothing() -> None:
    first = lead(service(health={"us-east": Verdict.UNHEALTHY}))
    later = NOW + timedelta(seconds=5)

    again = lead(service(written(first), {"us-east": Verdict.UNHEALTHY}, now=later))

    assert again.plans == first.plans
    assert again.changed == ()


def test_a_new_leader_goes_on_where_the_last_one_was() -> None:
    first = lead(service(health={"us-east": Verdict.UNHEALTHY}))

    second = lead(service(written(first), epoch=5, region="eu-west"))

    assert second.plans["us-east"].traffic == first.plans["us-east"].traffic
    assert second.plans["us-east"].epoch == 5
    assert second.changed == ()


def test_a_ramp_says_when_to_decide_again() -> None:
    first = lead(service(health={"us-east": Verdict.UNHEALTHY}))

    second = lead(service(written(first), {"us-east": Verdict.HEALTHY}))

    assert second.again == timedelta(seconds=30)


def test_the_plan_of_the_largest_epoch_is_the_memory() -> None:
    calm, moved = lead(service()), lead(service(health={"us-east": Verdict.UNHEALTHY}))
    plans = written(moved, ("us-east",), epoch=3) | written(calm, ("eu-west",), epoch=4)

    assert [each.state for each in last_traffic(service(plans))] == [TrafficState.SERVING] * 3


def test_of_one_leaders_plans_the_one_with_the_latest_change_is_the_memory() -> None:
    calm, moved = lead(service()), lead(service(health={"us-east": Verdict.UNHEALTHY}))
    plans = written(calm, ("eu-west",)) | written(moved, ("us-east",))

    assert last_traffic(service(plans))[0].state is TrafficState.DRAINED


def test_regions_are_fitted_to_the_spec_and_new_ones_serve_at_once() -> None:
    first = lead(service(names=("us-east", "eu-west"), health={"us-east": Verdict.UNHEALTHY}))

    found = last_traffic(service(written(first), names=("ap-south", "us-east")))

    assert [(each.region, each.state) for each in found] == [
        ("ap-south", TrafficState.SERVING),
        ("us-east", TrafficState.DRAINED),
    ]


def test_an_edit_that_leaves_only_a_drained_region_gives_it_traffic() -> None:
    first = lead(service(health={"us-east": Verdict.UNHEALTHY}))

    second = lead(service(written(first), {"us-east": Verdict.UNHEALTHY}, names=("us-east",)))

    assert second.plans["us-east"].traffic[0].percent > 0


def test_a_plan_survives_the_wire() -> None:
    plan = lead(service(health={"us-east": Verdict.UNHEALTHY})).plans["eu-west"]

    assert RegionPlanSpec.parse(plan.wire()) == plan
