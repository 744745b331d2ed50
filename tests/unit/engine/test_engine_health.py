"""Readiness, liveness and the watch over progress, with time as a value."""

from __future__ import annotations

import pytest

from holdfast_engine.health import Health, ProgressWatch, Reason


@pytest.mark.parametrize(
    ("health", "not_ready", "not_alive"),
    [
        (Health(), Reason.LOADING, None),
        (Health(loaded=True), None, None),
        (Health(loaded=True, draining=True), Reason.DRAINING, None),
        (Health(loaded=True, stalled=True), Reason.STALLED, Reason.STALLED),
        (Health(loaded=True, draining=True, stalled=True), Reason.DRAINING, Reason.STALLED),
        (Health(failure="out of memory"), Reason.FAILED, Reason.FAILED),
    ],
)
def test_readiness_and_liveness_follow_from_the_facts(
    health: Health, not_ready: Reason | None, not_alive: Reason | None
) -> None:
    assert (health.not_ready(), health.not_alive()) == (not_ready, not_alive)


def ticks_until_stalled(watch: ProgressWatch, limit: int = 100) -> int | None:
    return next((tick for tick in range(1, limit) if watch.tick(watch.interval)), None)


def test_a_loop_without_steps_is_stalled_after_the_timeout() -> None:
    watch = ProgressWatch(timeout=5.0)
    assert ticks_until_stalled(watch) == 10


def test_a_step_starts_the_count_anew() -> None:
    watch = ProgressWatch(timeout=5.0)
    for _ in range(50):
        assert not watch.tick(watch.interval)
        watch.progress()


def test_a_pause_of_the_whole_process_is_not_taken_for_a_stalled_loop() -> None:
    watch = ProgressWatch(timeout=5.0)
    assert not watch.tick(3600.0)
