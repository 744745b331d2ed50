"""How many engines the other regions run while one is away."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.api.llmservice import LLMServiceSpec
from holdfast.api.regionplan import RegionTraffic, TrafficState
from holdfast.domain.capacity import missing_engines, replicas


def spec(*limits: tuple[int, int]) -> LLMServiceSpec:
    regions: list[dict[str, Any]] = [
        {"name": name, "replicas": {"min": least, "max": most}}
        for name, (least, most) in zip("abcde", limits, strict=False)
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


LIMITS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(1, 9)).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=5
)


@given(LIMITS, st.lists(st.sampled_from([0, 5, 50, 99, 100]), min_size=5, max_size=5))
def test_every_region_stays_within_its_limits_and_what_is_lost_is_found_or_told(
    limits: list[tuple[int, int]], percents: list[int]
) -> None:
    wanted, now = spec(*limits), traffic(*percents[: len(limits)])

    found, missing = replicas(wanted, now), missing_engines(wanted, now)

    assert missing >= 0
    for (least, most), (name, count), each in zip(limits, found.items(), now, strict=True):
        assert least <= count <= most
        assert each.region == name
        if each.state is not TrafficState.SERVING:
            assert count == least
        elif missing:
            assert count == most
