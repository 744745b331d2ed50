"""What `kubectl holdfast` shows and orders, from fleets that are values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.holdfast.conftest import spec

from holdfast.api import names
from holdfast.api.conditions import Condition, ConditionStatus, Reason
from holdfast.api.llmservice import LLMServiceSpec, LLMServiceStatus, Replication
from holdfast.api.region import GatewayAddress, Region, RegionSpec, RegionStatus, Verdict
from holdfast.api.region import ServiceSeen as SeenThere
from holdfast.api.regionplan import RegionPlan, RegionPlanSpec, RegionTraffic, TrafficState
from holdfast.cli import columns, events, order, show
from holdfast.cli.fleet import Fleet, LeaseSeen, ServiceSeen, Site, refusals
from holdfast.cli.order import Outcome

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAMES = ("us-east", "eu-west", "ap-south")


def traffic(region: str, state: TrafficState = TrafficState.SERVING, reason: str = Reason.STEADY) -> RegionTraffic:
    percent = {TrafficState.SERVING: 100, TrafficState.DRAINED: 0, TrafficState.RAMPING: 25}[state]
    since = None if reason == Reason.STEADY else NOW - timedelta(seconds=14)
    message = f"{region} is {state}."
    return RegionTraffic(region=region, state=state, percent=percent, since=since, reason=reason, message=message)


def plan(region: str, *decided: RegionTraffic, epoch: int = 7, generation: int = 1) -> RegionPlan:
    whole = {each.region: each for each in (*map(traffic, NAMES), *decided)}
    content = RegionPlanSpec(
        service="chat",
        region=region,
        epoch=epoch,
        leader="us-east",
        number=4,
        digest="d",
        revision="1617acaaee",
        image="i",
        replicas=2,
        traffic=tuple(whole.values()),
    )
    return RegionPlan(namespace="default", name="chat", resource_version="1", generation=generation, spec=content)


def site(
    name: str, *decided: RegionTraffic, annotations: Mapping[str, dict[str, str]] | None = None, **rest: Any
) -> Site:
    seen = (SeenThere(service="default/chat", verdict=Verdict.HEALTHY, reason=Reason.ANSWERING),)
    regions = {
        each: Region(
            name=each,
            spec=RegionSpec(gateway=GatewayAddress(address=f"{each}.example.com")),
            status=RegionStatus(observer=name, verdict=Verdict.HEALTHY, services=seen),
            annotations=(annotations or {}).get(each, {}),
        )
        for each in NAMES
    }
    status = LLMServiceStatus(replication=Replication(number=4, digest="d", holders=NAMES), ready_replicas=2)
    fields: dict[str, Any] = {
        "regions": regions,
        "services": {"default/chat": ServiceSeen(LLMServiceSpec.parse(spec()), status)},
        "plans": {"default/chat": plan(name, *decided)},
        "lease": LeaseSeen("us-east", 7, NOW, 15.0),
    }
    return Site(**{**fields, **rest})


def fleet(*decided: RegionTraffic, **sites: Site) -> Fleet:
    whole = {name: sites.get(name.replace("-", "_"), site(name, *decided)) for name in NAMES}
    return Fleet(NOW, "us-east", whole)


def test_status_fits_120_columns_and_says_all() -> None:
    lines = show.status_text(fleet(traffic("eu-west", TrafficState.DRAINED, Reason.REGION_UNHEALTHY)), ["default/chat"])
    assert lines == [
        "Leader  us-east, epoch 7, by the Lease of us-east, eu-west, ap-south",
        "",
        "REGION    ROLE     GATEWAY               ORDER  SEEN BY us-east  eu-west  ap-south",
        "us-east   Serving  us-east.example.com   -      Healthy          Healthy  Healthy",
        "eu-west   Serving  eu-west.example.com   -      Healthy          Healthy  Healthy",
        "ap-south  Serving  ap-south.example.com  -      Healthy          Healthy  Healthy",
        "",
        "default/chat edit 4, held by us-east, eu-west, ap-south; planned by us-east, epoch 7, edit 4",
        "  REGION    STATE    SHARE  WEIGHT  READY  SEEN BY us-east  eu-west  ap-south",
        "  us-east   Serving  100%   100     2/2    Healthy          Healthy  Healthy",
        "  eu-west   Drained  0%     100     2/2    Healthy          Healthy  Healthy",
        "  ap-south  Serving  100%   100     2/2    Healthy          Healthy  Healthy",
        "  us-east: Serving, Steady: us-east is Serving.",
        "  eu-west: Drained 14s ago, RegionUnhealthy: eu-west is Drained.",
        "  ap-south: Serving, Steady: ap-south is Serving.",
    ]


def test_warm_engines_are_counted_beside_those_that_take_requests() -> None:
    kept = plan("eu-west")
    kept = kept.model_copy(update={"spec": kept.spec.model_copy(update={"warm": 2})})
    status = LLMServiceStatus(ready_replicas=2, warm_replicas=1)
    warm = site(
        "eu-west",
        plans={"default/chat": kept},
        services={"default/chat": ServiceSeen(LLMServiceSpec.parse(spec()), status)},
    )
    seen = fleet(eu_west=warm)
    [line] = [each for each in show.service_text(seen, "default/chat") if each.startswith("  eu-west  ")]
    assert line.split()[4:8] == ["2/2", "+", "1/2", "warm"]
    assert any(" 2 + 2 warm " in each for each in show.plan_text(seen, ["default/chat"]))


def test_conditions_that_are_not_as_they_should_be_are_shown_with_their_region() -> None:
    bad = Condition(
        type="Accepted",
        status=ConditionStatus.FALSE,
        reason=Reason.UNKNOWN_REGION,
        message="No Region object names mars.",
        observed_generation=1,
        last_transition_time=NOW,
    )
    status = LLMServiceStatus(conditions=(bad,))
    broken = site("eu-west", services={"default/chat": ServiceSeen(None, status)})
    assert "  eu-west: Accepted=False UnknownRegion: No Region object names mars." in show.service_text(
        fleet(eu_west=broken), "default/chat"
    )


def test_a_leader_takes_a_majority_of_all_regions_as_soon_as_others_can_be_read() -> None:
    other = site("eu-west", lease=LeaseSeen("eu-west", 6, NOW, 15.0))
    seen = replace(fleet(), sites={"us-east": site("us-east"), "eu-west": other})
    assert seen.leader() is None
    assert show.leader_sentence(seen) == (
        "Leader  none that a majority names; us-east names us-east (epoch 7); eu-west names eu-west (epoch 6)."
    )
    alone = replace(fleet(), sites={"us-east": site("us-east")}, unread={"eu-west": "eu-west does not answer."})
    assert show.leader_sentence(alone) == "Leader  us-east, epoch 7, by the Lease of us-east"
    assert "eu-west does not answer." in show.status_text(alone, [])


def test_a_lease_that_was_not_renewed_is_said_to_be_old() -> None:
    old = LeaseSeen("us-east", 7, NOW - timedelta(minutes=5), 15.0)
    sites = {name: site(name, lease=old) for name in NAMES}
    assert show.leader_sentence(Fleet(NOW, "us-east", sites)).endswith("last renewed 5m ago, so it may lead no more")


def test_an_operator_that_is_silent_is_named() -> None:
    silent = site("eu-west", heard=NOW - timedelta(minutes=5))
    assert show.status_text(fleet(eu_west=silent), [])[1] == (
        "The operator of eu-west was last heard 5m ago: what it saw is old."
    )
    assert fleet(eu_west=site("eu-west", heard=NOW - timedelta(seconds=20))).silent() == {}


def test_verdicts_of_many_observers_are_counted() -> None:
    sites = {f"r{at}": site(f"r{at}") for at in range(6)}
    lines = show.regions_text(Fleet(NOW, "r0", sites))
    assert lines[1].endswith("6 Healthy")
    assert max(map(len, lines)) <= columns.WIDTH


def test_the_traffic_is_that_of_the_latest_plan() -> None:
    stale = site("eu-west", plans={"default/chat": plan("eu-west", traffic("us-east", TrafficState.DRAINED), epoch=6)})
    assert fleet(eu_west=stale).traffic("default/chat")[0].state is TrafficState.SERVING


def test_plans_are_folded_into_120_columns() -> None:
    lines = show.plan_text(fleet(), ["default/chat"])
    assert len(lines) > len(NAMES)
    assert max(map(len, lines)) <= columns.WIDTH
    assert show.plan_text(fleet(), []) == ["No plans yet: no leader has planned anything."]


def test_an_order_is_written_later_than_all_that_is_written_already() -> None:
    ahead = {"eu-west": {names.DRAIN_ANNOTATION: "2026-01-01T13:00:00Z"}}
    seen = fleet(ap_south=site("ap-south", annotations=ahead))
    assert order.annotate(seen, "eu-west", drain=False, override=False) == {
        names.UNDRAIN_ANNOTATION: "2026-01-01T13:00:00.000001Z",
        names.OVERRIDE_ANNOTATION: None,
    }
    assert order.annotate(fleet(), "eu-west", drain=True, override=True) == {
        names.DRAIN_ANNOTATION: "2026-01-01T12:00:00.000000Z",
        names.OVERRIDE_ANNOTATION: "true",
    }


def test_the_end_of_a_drain_without_a_moment_takes_it_away_and_names_the_other_clusters_that_have_one() -> None:
    forever = {"eu-west": {names.DRAIN_ANNOTATION: "true"}}
    seen = fleet(us_east=site("us-east", annotations=forever), ap_south=site("ap-south", annotations=forever))
    patch = order.annotate(seen, "eu-west", drain=False, override=False)
    assert patch[names.DRAIN_ANNOTATION] is None
    [sentence] = order.in_the_way(seen, "eu-west", drain=False)
    assert sentence.startswith("ap-south has serving.holdfast.dev/drain")
    assert order.in_the_way(seen, "eu-west", drain=True) == []


@pytest.mark.parametrize(
    ("decided", "override", "refused"),
    [
        ((), False, ""),
        ((traffic("us-east", TrafficState.DRAINED),), False, "1 of 3 regions are drained already and at most 1 may be"),
        ((traffic("us-east", TrafficState.DRAINED),), True, ""),
        (
            (traffic("us-east", TrafficState.DRAINED), traffic("ap-south", TrafficState.DRAINED)),
            True,
            "no other region has traffic",
        ),
    ],
)
def test_a_failover_is_refused_as_the_leader_would(
    decided: tuple[RegionTraffic, ...], override: bool, refused: str
) -> None:
    found = refusals(fleet(*decided), "eu-west", override)
    assert bool(found) is bool(refused)
    assert refused in found.get("default/chat", "")


def progress(seen: Fleet, drain: bool = True, waited: float = 0.0, before: Fleet | None = None) -> order.Progress:
    [found] = order.progress(seen, "eu-west", drain, order.plan_generations(before or seen), waited)
    return found


def test_a_drain_is_done_once_every_plan_that_can_be_read_says_so() -> None:
    drained = traffic("eu-west", TrafficState.DRAINED, Reason.DRAIN_REQUESTED)
    assert progress(fleet(drained)).outcome is Outcome.DONE
    behind = progress(fleet(drained, ap_south=site("ap-south")))
    assert behind.outcome is Outcome.WAITING
    assert behind.message == (
        "default/chat: eu-west is Drained (DrainRequested), but the plan stored in ap-south does not say so yet"
    )


def test_an_old_refusal_is_no_answer_to_a_new_order_until_it_has_stood_for_a_while() -> None:
    refused = traffic("eu-west", reason=Reason.DRAIN_REFUSED)
    assert progress(fleet(refused)).outcome is Outcome.WAITING
    assert progress(fleet(refused), waited=order.REFUSAL_SECONDS).outcome is Outcome.REFUSED
    newer = site("us-east", plans={"default/chat": plan("us-east", refused, generation=2)})
    assert progress(fleet(refused, us_east=newer), before=fleet()).outcome is Outcome.REFUSED


def test_the_end_of_a_drain_is_done_when_the_region_has_its_whole_share() -> None:
    ramping = progress(fleet(traffic("eu-west", TrafficState.RAMPING, Reason.RAMPING_BACK)), drain=False)
    assert ramping.outcome is Outcome.WAITING
    assert ramping.message == "default/chat: eu-west is Ramping with 25% (RampingBack)"
    assert progress(fleet(), drain=False).outcome is Outcome.DONE


def test_without_plans_an_order_waits() -> None:
    sites = {name: site(name, plans={}) for name in NAMES}
    assert progress(Fleet(NOW, "us-east", sites)).message == "default/chat: no leader has planned it yet."


def test_the_time_to_wait_covers_every_step_of_the_ramp() -> None:
    assert order.patience(fleet(), "eu-west", drain=False) == timedelta(minutes=2) + 2 * timedelta(seconds=10 + 5 * 30)
    assert order.patience(fleet(), "eu-west", drain=True) == timedelta(minutes=2)


def test_events_of_both_apis_are_read() -> None:
    about = {"kind": "LLMService", "name": "chat", "namespace": "default", "apiVersion": names.API_VERSION}
    old = {"involvedObject": about, "metadata": {}, "lastTimestamp": "2026-01-01T11:59:00Z", "count": 2, "message": "m"}
    new = {"involvedObject": about, "metadata": {}, "lastTimestamp": None, "eventTime": "2026-01-01T11:59:30.5Z"}
    assert events.parse(old).count == 2
    lines = events.text([events.parse(old), events.parse(new)], NOW)
    assert lines[1].split() == ["60s", "Normal", "LLMService", "default/chat", "m", "(2", "times)"]
    assert lines[2].split()[0] == "29s"


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0s"), (14, "14s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d")]
)
def test_ages_are_short(seconds: int, text: str) -> None:
    assert columns.ago(timedelta(seconds=seconds)) == text
