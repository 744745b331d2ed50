"""The load's schedule: rate, shares, and that a seed decides everything."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_chaos.schedule import LONG_TOKENS, SHORT_TOKENS, STREAM_TOKENS, plan_arrivals, stream_plan

RATES = st.floats(1, 200, allow_nan=False)
SECONDS = st.floats(1, 30, allow_nan=False)
SEEDS = st.integers(0, 2**32)


@given(RATES, SECONDS, SEEDS)
def test_arrivals_come_in_order_within_the_load_at_its_rate(rate: float, seconds: float, seed: int) -> None:
    arrivals = plan_arrivals(rate, seconds, seed)
    moments = [arrival.at for arrival in arrivals]

    assert len(arrivals) == round(rate * seconds)
    assert moments == sorted(moments)
    assert all(0 <= moment <= seconds + 1 / rate for moment in moments)


@pytest.mark.parametrize("second", range(10))
def test_every_second_has_the_full_rate(second: int) -> None:
    moments = [arrival.at for arrival in plan_arrivals(50, 10, seed=3)]

    assert sum(second <= moment < second + 1 for moment in moments) == 50


@given(SEEDS)
def test_of_every_ten_requests_one_is_long(seed: int) -> None:
    tokens = [arrival.tokens for arrival in plan_arrivals(50, 4, seed)]

    for begin in range(0, len(tokens), 10):
        long = [count for count in tokens[begin : begin + 10] if LONG_TOKENS[0] <= count <= LONG_TOKENS[1]]
        short = [count for count in tokens[begin : begin + 10] if SHORT_TOKENS[0] <= count <= SHORT_TOKENS[1]]
        assert (len(long), len(short)) == (1, 9)


def test_the_same_seed_gives_the_same_load_and_another_seed_another() -> None:
    assert plan_arrivals(50, 5, seed=1) == plan_arrivals(50, 5, seed=1)
    assert plan_arrivals(50, 5, seed=1) != plan_arrivals(50, 5, seed=2)
    assert list(islice(stream_plan(1, 4), 5)) == list(islice(stream_plan(1, 4), 5))
    assert list(islice(stream_plan(1, 4), 5)) != list(islice(stream_plan(1, 5), 5))


def test_streams_are_long() -> None:
    lengths = [tokens for tokens, _ in islice(stream_plan(seed=0, slot=0), 100)]

    assert all(STREAM_TOKENS[0] <= tokens <= STREAM_TOKENS[1] for tokens in lengths)
    assert len(set(lengths)) > 10


def test_no_two_requests_of_a_load_have_the_same_prompt() -> None:
    prompts = [arrival.prompt for arrival in plan_arrivals(50, 10, seed=0)]

    assert len(set(prompts)) == len(prompts)
