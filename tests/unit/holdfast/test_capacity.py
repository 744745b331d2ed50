"""How many engines the other regions run while one is away."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.api.llmservice import LLMServiceSpec
from holdfast.api.regionplan import RegionTraffic, TrafficState
from holdfast.domain.capacity import Engines, engines, missing_engines
from holdfast.domain.replicas import replicas_of, warm_of


def spec(*limits: tuple[int, ...]) -> LLMServiceSpec:
    """Regions a, b, c, … with (least, most[, warm]) engines each."""
    regions: list[dict[str, Any]] = [
        {"name": name, "replicas": {"min": least, "max": most}, "warm": sum(warm)}
        for name, (least, most, *warm) in zip("abcde", limits, strict=False)
    ]
    return LLMServiceSpec.parse(
        {"model": {"name": "m", "source": "file:///m"}, "engine": {"type": "openvino"}, "regions": regions}
    )


def traffic(*percents: int) -> tuple[RegionTraffic, ...]:
    state = {0: TrafficState.DRAINED, 100: TrafficState.SERVING}
    return tuple(
        RegionTraffic(
            region=name, state=state.get(percent, TrafficState.RAMPING), percent=percent, reason="r", message=""
        )
        for name, percent in zip("abcde", percents, strict=False)
    )


def replicas(wanted: LLMServiceSpec, now: tuple[RegionTraffic, ...]) -> dict[str, int]:
    return {name: found.replicas for name, found in engines(wanted, now).items()}


def test_every_region_runs_its_minimum_while_all_serve() -> None:
    assert replicas(spec((2, 8), (1, 4)), traffic(100, 100)) == {"a": 2, "b": 1}


def test_the_others_run_what_a_drained_region_carried_and_it_keeps_its_own() -> None:
    assert replicas(spec((2, 8), (2, 8), (2, 8)), traffic(0, 100, 100)) == {"a": 2, "b": 3, "c": 3}


def test_the_emptiest_region_gets_the_next_engine_and_of_equal_ones_the_most_preferred() -> None:
    assert replicas(spec((1, 1), (2, 8), (2, 8)), traffic(0, 100, 100)) == {"a": 1, "b": 3, "c": 2}
    assert replicas(spec((1, 1), (4, 5), (2, 8)), traffic(0, 100, 100)) == {"a": 1, "b": 4, "c": 3}


def test_what_exceeds_every_maximum_stays_missing_and_is_told() -> None:
    found = spec((4, 8), (2, 3))

    assert replicas(found, traffic(0, 100)) == {"a": 4, "b": 3}
    assert missing_engines(found, traffic(0, 100)) == 3


def test_a_ramping_region_is_missed_for_the_part_that_it_does_not_get_yet() -> None:
    found = spec((4, 8), (2, 9))

    assert replicas(found, traffic(25, 100)) == {"a": 4, "b": 5}
    assert missing_engines(found, traffic(25, 100)) == 0


def test_engines_that_stand_in_for_a_ramping_region_do_not_also_stand_in_for_a_drained_one() -> None:
    found = spec((2, 2), (2, 2), (1, 4))

    assert replicas(found, traffic(0, 5, 100)) == {"a": 2, "b": 2, "c": 4}
    assert missing_engines(found, traffic(0, 5, 100)) == 1


def test_a_region_that_runs_no_engines_is_not_asked_for_any() -> None:
    nothing = LLMServiceSpec.parse(
        {
            "model": {"name": "m", "source": "file:///m"},
            "engine": {"type": "openvino"},
            "regions": [{"name": "a"}, {"name": "b", "replicas": {"min": 0}}],
        }
    )

    assert replicas(nothing, traffic(0, 100)) == {"a": 1, "b": 0}


def test_warm_engines_are_promoted_before_any_is_started_elsewhere() -> None:
    """Region b is the emptier, and c has what is needed at once."""
    assert engines(spec((1, 1), (1, 8), (2, 4, 1)), traffic(0, 100, 100)) == {
        "a": Engines(1), "b": Engines(1), "c": Engines(3, 0),
    }  # fmt: skip


def test_the_region_with_most_warm_engines_left_promotes_the_next_and_of_equal_ones_the_most_preferred() -> None:
    assert engines(spec((3, 3, 2), (2, 8, 1), (2, 8, 2)), traffic(0, 100, 100)) == {
        "a": Engines(3, 2), "b": Engines(3, 0), "c": Engines(4, 0),
    }  # fmt: skip


def test_once_no_warm_engine_is_left_others_are_started_in_the_emptiest_region() -> None:
    assert engines(spec((2, 2), (2, 8, 1), (2, 8)), traffic(0, 100, 100)) == {
        "a": Engines(2), "b": Engines(3, 0), "c": Engines(3),
    }  # fmt: skip


def test_a_warm_engine_beyond_the_maximum_stays_one_and_is_told_to_be_missing() -> None:
    found = spec((2, 2), (2, 3, 2))

    assert engines(found, traffic(0, 100)) == {"a": Engines(2), "b": Engines(3, 1)}
    assert missing_engines(found, traffic(0, 100)) == 1


def test_without_a_maximum_every_warm_engine_may_be_promoted_and_none_is_started() -> None:
    found = LLMServiceSpec.parse(
        {
            "model": {"name": "m", "source": "file:///m"},
            "engine": {"type": "openvino"},
            "defaults": {"replicas": {"min": 2}, "warm": 1},
            "regions": [{"name": "a"}, {"name": "b"}, {"name": "c", "warm": 0}, {"name": "d", "replicas": {"min": 0}}],
        }
    )

    assert [(*replicas_of(found, each), warm_of(found, each)) for each in found.regions] == [
        (2, 3, 1), (2, 3, 1), (2, 2, 0), (0, 0, 0),
    ]  # fmt: skip
    assert engines(found, traffic(0, 100, 100, 100)) == {
        "a": Engines(2, 1), "b": Engines(3, 0), "c": Engines(2, 0), "d": Engines(0, 0),
    }  # fmt: skip
    assert missing_engines(found, traffic(0, 100, 100, 100)) == 1


def test_warm_engines_are_restored_step_by_step_as_the_traffic_comes_back() -> None:
    found = spec((4, 4), (2, 8, 4))

    steps = [engines(found, traffic(percent, 100))["b"] for percent in (100, 0, 25, 50, 100)]

    assert steps == [Engines(2, 4), Engines(6, 0), Engines(5, 1), Engines(4, 2), Engines(2, 4)]


LIMITS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(1, 9), st.integers(0, 3)).map(
        lambda drawn: (min(drawn[:2]), max(drawn[:2]), drawn[2])
    ),
    min_size=1,
    max_size=5,
)
PERCENTS = st.lists(st.sampled_from([0, 5, 50, 99, 100]), min_size=5, max_size=5)


@given(LIMITS, PERCENTS)
def test_every_region_stays_within_its_limits_and_what_is_lost_is_found_or_told(
    limits: list[tuple[int, int, int]], percents: list[int]
) -> None:
    wanted, now = spec(*limits), traffic(*percents[: len(limits)])

    found, missing = replicas(wanted, now), missing_engines(wanted, now)

    assert missing >= 0
    for (least, most, _), (name, count), each in zip(limits, found.items(), now, strict=True):
        assert least <= count <= most
        assert each.region == name
        if each.state is not TrafficState.SERVING:
            assert count == least
        elif missing:
            assert count == most


@given(LIMITS, PERCENTS)
def test_a_promotion_starts_no_engine_and_no_engine_is_started_while_one_could_be_promoted(
    limits: list[tuple[int, int, int]], percents: list[int]
) -> None:
    wanted, now = spec(*limits), traffic(*percents[: len(limits)])
    usual = engines(wanted, traffic(*[100] * len(limits)))

    found = engines(wanted, now)

    started = False
    for name, each in found.items():
        before = usual[name]
        assert 0 <= each.warm <= before.warm
        started |= each.replicas + each.warm > before.replicas + before.warm
        assert each.replicas + each.warm >= before.replicas + before.warm
    for (_, most, _), each, share in zip(limits, found.values(), now, strict=True):
        if share.state is not TrafficState.SERVING:
            assert each == usual[share.region]
        elif started:
            assert each.warm == 0 or each.replicas == most
    assert engines(wanted, traffic(*[100] * len(limits))) == usual


@given(LIMITS, PERCENTS)
def test_warm_engines_take_nothing_from_what_a_region_can_carry(
    limits: list[tuple[int, int, int]], percents: list[int]
) -> None:
    now = traffic(*percents[: len(limits)])
    cold = spec(*(each[:2] for each in limits))

    assert missing_engines(spec(*limits), now) == missing_engines(cold, now)
