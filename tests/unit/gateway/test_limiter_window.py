"""When a sliding window has room again."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given

from holdfast_gateway.limiter.window import Window

LENGTH = 60
INSTANT = 1e-6


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Whatever a store can say: either count may be there or not; the earlier one goes when the present one turns."""
    turns_in = draw(st.floats(0.001, LENGTH))
    previous, current = draw(st.integers(0, 10_000)), draw(st.integers(0, 10_000))
    return Window(
        LENGTH, previous, turns_in if previous else 0.0, current, LENGTH + turns_in if current else 0.0
    )  # fmt: skip


def after(window: Window, seconds: float) -> Window:
    """The same window later, if nothing more is counted."""
    if window.current and seconds >= window.turns_in:
        return Window(LENGTH, window.current, max(0.0, window.current_left - seconds))
    return replace(
        window,
        previous_left=max(0.0, window.previous_left - seconds),
        current_left=max(0.0, window.current_left - seconds),
    )


@given(windows(), st.integers(1, 20_000))
def test_there_is_room_just_after_the_wait_and_none_just_before(window: Window, limit: int) -> None:
    wait = window.wait(limit)
    assert after(window, wait + INSTANT).counted < limit
    if wait > 0:
        assert after(window, max(0.0, wait - 2 * INSTANT)).counted >= limit


@given(windows(), st.integers(1, 20_000))
def test_whoever_has_room_need_not_wait_and_whoever_has_none_waits_an_instant_at_least(
    window: Window, limit: int
) -> None:
    if window.remaining(limit) > 0:
        assert window.wait(limit) == 0
    elif window.wait(limit) == 0:
        assert after(window, INSTANT).remaining(limit) > 0


@given(windows(), st.integers(1, 20_000))
def test_nobody_waits_longer_than_two_windows(window: Window, limit: int) -> None:
    assert 0 <= window.wait(limit) <= 2 * LENGTH


@given(windows(), st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_higher_limit_has_room_no_later(window: Window, limit: int, more: int) -> None:
    assert window.wait(limit + more) <= window.wait(limit)
