"""Where traffic goes when regions fail, are ordered out, and come back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from holdfast.api.conditions import Reason
from holdfast.api.llmservice import Failover
from holdfast.api.region import Verdict
from holdfast.api.regionplan import RegionTraffic, TrafficState
from holdfast.domain.failover import TABLE, Event, Order, Situation, allowed_drained, due, steady, step
from holdfast.domain.health import Judgement

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HEALTHY, UNHEALTHY, UNKNOWN = Verdict.HEALTHY, Verdict.UNHEALTHY, Verdict.UNKNOWN
OUT, OUT_ANYHOW = Order(drain=True), Order(drain=True, override=True)
FAILOVER = Failover.parse({"failback": {"steps": [5, 50, 100], "hold": "30s"}})
SERVING, DRAINED, RAMPING = TrafficState.SERVING, TrafficState.DRAINED, TrafficState.RAMPING

Traffic = tuple[RegionTraffic, ...]


def serving(*names: str, **weights: int) -> Traffic:
    return tuple(
        steady(RegionTraffic(region=name, weight=weights.get(name, 100), reason="", message="")) for name in names
    )


def drained(name: str, reason: Reason = Reason.REGION_UNHEALTHY) -> RegionTraffic:
    return RegionTraffic(region=name, state=DRAINED, percent=0, since=NOW, reason=reason, message="It failed.")


def after(
    before: Traffic,
    health: Mapping[str, Verdict] = {},
    orders: Mapping[str, Order] = {},
    seconds: float = 0,
    words: str = "2 of 3 observers see it fail.",
    failover: Failover = FAILOVER,
) -> Traffic:
    judged = {name: Judgement(verdict, Reason.NO_PROGRESS, words) for name, verdict in health.items()}
    return step(Situation(NOW + timedelta(seconds=seconds), failover, before, judged, orders))


def states(traffic: Traffic) -> list[tuple[TrafficState, int]]:
    return [(each.state, each.percent) for each in traffic]


def test_nothing_happens_while_nothing_happens() -> None:
    before = serving("a", "b", "c")

    assert after(before, dict.fromkeys("abc", HEALTHY)) == before
    assert after(before) == before


def test_a_region_that_a_majority_sees_fail_is_drained_with_reason_and_sentence() -> None:
    found = after(serving("a", "b", "c"), {"b": UNHEALTHY})

    assert states(found) == [(SERVING, 100), (DRAINED, 0), (SERVING, 100)]
    assert found[1].reason == Reason.REGION_UNHEALTHY
    assert found[1].message == "2 of 3 observers see it fail."
    assert found[1].since == NOW


def test_a_region_that_is_not_seen_keeps_its_traffic() -> None:
    assert after(serving("a", "b", "c"), dict.fromkeys("abc", UNKNOWN)) == serving("a", "b", "c")


def test_a_drained_region_comes_back_step_by_step() -> None:
    traffic, percents = (drained("a"), *serving("b", "c")), []
    for seconds in (0, 10, 30, 59, 60):
        traffic = after(traffic, {"a": HEALTHY}, seconds=seconds)
        percents.append((seconds, traffic[0].state, traffic[0].percent))

    assert percents == [(0, RAMPING, 5), (10, RAMPING, 5), (30, RAMPING, 50), (59, RAMPING, 50), (60, SERVING, 100)]
    assert traffic[0].reason == Reason.STEADY


def test_a_region_that_fails_while_it_comes_back_is_drained_again_and_begins_anew() -> None:
    ramping = after((drained("a"), *serving("b", "c")), {"a": HEALTHY})

    worse = after(ramping, {"a": UNHEALTHY}, seconds=5)
    assert worse[0].reason == Reason.RAMP_WORSENED
    assert after(worse, {"a": HEALTHY}, seconds=9)[0].percent == 5


def test_a_ramp_waits_while_the_region_is_not_seen() -> None:
    ramping = after((drained("a"), *serving("b", "c")), {"a": HEALTHY})

    assert after(ramping, {"a": UNKNOWN}, seconds=300) == ramping


def test_no_more_than_the_allowed_fraction_is_drained() -> None:
    found = after((drained("a"), *serving("b", "c")), {"a": UNHEALTHY, "b": UNHEALTHY})

    assert states(found)[1] == (SERVING, 100)
    assert found[1].reason == Reason.TRAFFIC_STAYS
    assert "1 of 3 regions are drained already and at most 1 may be" in found[1].message


def test_a_region_that_comes_back_makes_room_for_one_that_fails_after_it() -> None:
    found = after((*serving("a", "b"), drained("c")), {"a": UNHEALTHY, "b": HEALTHY, "c": HEALTHY})

    assert states(found) == [(DRAINED, 0), (SERVING, 100), (RAMPING, 5)]


def test_if_all_look_bad_traffic_stays_where_it_is() -> None:
    found = after(
        serving("a", "b", "c", "d"),
        dict.fromkeys("abcd", UNHEALTHY),
        failover=FAILOVER.model_copy(update={"max_drained_fraction": 1.0}),
    )

    assert [each.state for each in found] == [DRAINED, DRAINED, DRAINED, SERVING]
    assert "no other region has traffic" in found[3].message


def test_the_only_region_with_weight_keeps_its_traffic() -> None:
    found = after(serving("a", "b", "c", b=0, c=0), {"a": UNHEALTHY})

    assert states(found)[0] == (SERVING, 100)
    assert "no other region has traffic" in found[0].message


def test_a_refusal_ends_with_its_cause() -> None:
    refused = after(serving("a"), {"a": UNHEALTHY})

    assert refused[0].reason == Reason.TRAFFIC_STAYS
    assert after(refused, {"a": HEALTHY}) == serving("a")


def test_a_refusal_in_a_ramp_ends_with_its_cause_and_the_ramp_goes_on() -> None:
    ramping = after((drained("a"), *serving("b", "c")), {"a": HEALTHY})
    refused = after(ramping[:1], {"a": UNHEALTHY}, seconds=1)
    assert refused[0].reason == Reason.TRAFFIC_STAYS

    again = after(refused, {"a": UNKNOWN}, seconds=2)

    assert (again[0].state, again[0].percent, again[0].reason) == (RAMPING, 5, Reason.RAMPING_BACK)


def test_a_refusal_is_not_written_anew_when_another_observer_says_the_same() -> None:
    refused = after(serving("a"), {"a": UNHEALTHY}, words="2 of 3 observers see a fail.")

    assert after(refused, {"a": UNHEALTHY}, words="3 of 3 observers see a fail.") == refused


def test_an_order_drains_and_taking_it_back_ramps() -> None:
    out = after(serving("a", "b", "c"), {"a": HEALTHY}, {"a": OUT})
    assert out[0].reason == Reason.DRAIN_REQUESTED
    assert after(out, {"a": HEALTHY}, {"a": OUT}, seconds=300) == out

    back = after(out, {"a": HEALTHY}, {"a": Order()})
    assert states(back)[0] == (RAMPING, 5)


def test_an_order_that_exceeds_the_cap_is_refused_unless_it_overrides() -> None:
    before = (drained("a"), *serving("b", "c"))

    assert after(before, {"a": UNHEALTHY}, {"b": OUT})[1].reason == Reason.DRAIN_REFUSED
    assert after(before, {"a": UNHEALTHY}, {"b": OUT_ANYHOW})[1].state is DRAINED


def test_no_order_takes_the_last_region_with_traffic() -> None:
    found = after(serving("a", "b", "c"), orders=dict.fromkeys("abc", OUT_ANYHOW))

    assert [each.state for each in found] == [DRAINED, DRAINED, SERVING]
    assert found[2].reason == Reason.DRAIN_REFUSED


def test_if_an_edit_leaves_only_drained_regions_the_best_of_them_comes_back() -> None:
    left = (drained("a"), drained("b"), drained("c"))

    found = after(left, {"a": UNHEALTHY, "b": UNKNOWN, "c": UNKNOWN}, {"b": OUT})

    assert states(found) == [(DRAINED, 0), (DRAINED, 0), (RAMPING, 5)]
    assert "needed" in found[2].message
    assert after(found, {"a": UNHEALTHY, "b": UNKNOWN, "c": UNKNOWN}, {"b": OUT}, seconds=300) == found


def test_the_number_of_regions_that_may_be_drained_is_rounded_down_and_never_all() -> None:
    assert [allowed_drained(count, 0.5) for count in range(1, 6)] == [0, 1, 1, 2, 2]
    assert allowed_drained(3, 1.0) == 2
    assert allowed_drained(10, 0.3) == 3
    assert allowed_drained(0, 0.5) == 0


def test_the_next_step_of_a_ramp_is_due_after_its_hold_and_not_again_and_again() -> None:
    ramping = after((drained("a"), *serving("b")), {"a": HEALTHY})

    assert due(ramping, FAILOVER, NOW + timedelta(seconds=10)) == timedelta(seconds=20)
    assert due(ramping, FAILOVER, NOW + timedelta(seconds=31)) is None, "it waits for health, not for the time"
    assert due(serving("a"), FAILOVER, NOW) is None


def test_a_drained_region_never_serves_fully_without_ramping() -> None:
    assert {TABLE[DRAINED, event] for event in Event if (DRAINED, event) in TABLE} == {RAMPING}
    assert (DRAINED, Event.STEP_HELD) not in TABLE


SITUATIONS = st.fixed_dictionaries(
    {
        "health": st.dictionaries(st.sampled_from("abcd"), st.sampled_from(Verdict)),
        "orders": st.dictionaries(st.sampled_from("abcd"), st.sampled_from([OUT, OUT_ANYHOW, Order()])),
        "passed": st.sampled_from([0, 1, 30, 90]),
    }
)


@given(
    st.lists(SITUATIONS, max_size=12),
    st.floats(0, 1),
    st.lists(st.sampled_from([0, 50, 100]), min_size=1, max_size=4).filter(any),
)
def test_over_any_story_caps_hold_somebody_serves_and_steps_come_to_rest(
    story: list[dict[str, dict[str, Verdict] | dict[str, Order] | int]], fraction: float, weights: list[int]
) -> None:
    failover = FAILOVER.model_copy(update={"max_drained_fraction": fraction})
    names = "abcd"[: len(weights)]
    traffic, seconds = serving(*names, **dict(zip(names, weights, strict=True))), 0.0
    for now in story:
        health, orders, passed = now["health"], now["orders"], now["passed"]
        assert isinstance(health, dict)
        assert isinstance(orders, dict)
        assert isinstance(passed, int)
        seconds += passed
        before, traffic = traffic, after(traffic, health, orders, seconds, failover=failover)  # type: ignore[arg-type]
        gone = [b.region for b, a in zip(before, traffic, strict=True) if b.state is not DRAINED and a.state is DRAINED]
        regular = [name for name in gone if not orders.get(name, Order()).override]  # type: ignore[union-attr]
        total = sum(each.state is DRAINED for each in traffic)
        overridden = total - len(regular) if regular else 0
        assert not regular or total - overridden <= allowed_drained(len(traffic), fraction)
        assert any(each.weight * each.percent for each in traffic)
        for b, a in zip(before, traffic, strict=True):
            assert not (b.state is DRAINED and a.state is SERVING)
            assert (a.state is DRAINED) == (a.percent == 0)
            assert (a.state is SERVING) == (a.percent == 100)
        for _ in range(3):
            rest, traffic = traffic, after(traffic, health, orders, seconds, failover=failover)  # type: ignore[arg-type]
        assert traffic == rest, "the same situation must not call for writes again and again"
