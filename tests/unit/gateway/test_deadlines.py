"""The pattern that stands for a comparison of numbers."""

from __future__ import annotations

import re

import hypothesis.strategies as st
from hypothesis import given

from holdfast_gateway.render.deadlines import NUMBER, at_most

LIMITS = st.integers(1, 100_000) | st.sampled_from([1, 9, 10, 99, 100, 900, 909, 1000])
NEAR = st.decimals(-2, 2, places=3)


@given(LIMITS, NEAR | st.decimals(-100_000, 100_000, places=2), st.integers(0, 2))
def test_it_matches_exactly_the_numbers_that_are_not_above_the_limit(limit: int, offset: object, zeros: int) -> None:
    value = limit + offset  # type: ignore[operator]
    text = "0" * zeros + format(value, "f")
    if re.fullmatch(NUMBER, text):
        assert bool(re.fullmatch(at_most(limit), text)) == (value <= limit)


@given(LIMITS, st.text(max_size=8) | st.sampled_from(["", "1e3", "-1", "inf", "nan", ".5", "5.", "0x1", "1_0"]))
def test_it_matches_nothing_but_numbers(limit: int, text: str) -> None:
    if re.fullmatch(at_most(limit), text):
        assert 0 <= float(text) <= limit
