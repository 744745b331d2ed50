"""The queue in front of the engine: order, bounds and who is turned away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast_engine.admission import LONGEST_RETRY, PROBE_PLACES, Admission, Priority
from holdfast_engine.limits import Limits

HIGH, NORMAL, LOW = Priority
classes = st.sampled_from(list(Priority))


def drain(admission: Admission, now: float = 0.0) -> list[int]:
    """The order in which those that wait get a place, each leaving before the next."""
    order = []
    while (id := admission.next()) is not None:
        order.append(id)
        admission.leave(id, now)
    return order


def test_the_higher_class_goes_first_and_each_class_in_order_of_arrival() -> None:
    admission = Admission(Limits(places=1))
    for id, priority in enumerate([LOW, NORMAL, LOW, HIGH, NORMAL, HIGH], 1):
        assert admission.add(id, priority, probe=False, now=id / 10) is None
    assert drain(admission) == [4, 6, 2, 5, 1, 3]


def test_one_that_has_waited_long_enough_goes_before_a_class_above_it() -> None:
    admission = Admission(Limits(places=1, ageing=10))
    admission.add(1, LOW, probe=False, now=0)
    admission.add(2, NORMAL, probe=False, now=9)
    admission.add(3, NORMAL, probe=False, now=11)
    admission.add(4, HIGH, probe=False, now=19)
    admission.add(5, HIGH, probe=False, now=21)
    assert drain(admission) == [2, 4, 1, 3, 5]


@given(st.lists(st.tuples(classes, st.floats(0, 5)), min_size=1, max_size=60), st.integers(1, 4))
def test_nobody_starves_under_any_stream_of_higher_classes(arrivals: list[tuple[Priority, float]], places: int) -> None:
    """A low request goes before everybody who comes more than two times the ageing after it."""
    admission = Admission(Limits(places=places, waiting=1000, ageing=10))
    admission.add(0, LOW, probe=False, now=0)
    now, late = 0.0, set()
    for id, (priority, gap) in enumerate(arrivals, 1):
        now += gap
        admission.add(id, priority, probe=False, now=now)
        if now > 20:
            late.add(id)
    order = drain(admission)
    assert not late & set(order[: order.index(0)])


@given(
    st.lists(st.one_of(st.tuples(classes, st.booleans()), st.integers(0, 200)), max_size=120),
    st.integers(1, 4),
    st.integers(0, 5),
)
def test_bounds_hold_and_nobody_is_lost(steps: list[tuple[Priority, bool] | int], places: int, waiting: int) -> None:
    admission = Admission(Limits(places=places, waiting=waiting))
    inside: set[int] = set()
    running: dict[int, bool] = {}
    probes: set[int] = set()
    for now, step in enumerate(steps):
        if isinstance(step, int):
            if inside:
                gone = sorted(inside)[step % len(inside)]
                admission.leave(gone, now)
                inside.discard(gone)
                running.pop(gone, None)
        else:
            inside.add(now)
            if step[1]:
                probes.add(now)
            if (out := admission.add(now, step[0], probe=step[1], now=now)) is not None:
                assert out.id not in probes
                assert out.id not in running
                inside.remove(out.id)
        while (id := admission.next()) is not None:
            running[id] = id in probes
        assert sum(not probe for probe in running.values()) <= places
        assert admission.waiting() <= waiting
        assert len(running) <= places + len(probes)
        users = [id for id in inside - probes if id not in running]
        assert admission.waiting() == len(users)
        assert not users or sum(not probe for probe in running.values()) == places


def test_beyond_the_bound_the_lowest_class_is_turned_away_first_and_the_last_of_it() -> None:
    admission = Admission(Limits(places=1, waiting=3))
    admission.add(1, NORMAL, probe=False, now=0)
    admission.next()
    for id, priority in [(2, LOW), (3, LOW), (4, NORMAL)]:
        assert admission.add(id, priority, probe=False, now=0) is None

    def turned_away(id: int, priority: Priority) -> int:
        out = admission.add(id, priority, probe=False, now=1)
        assert out is not None
        return out.id

    assert turned_away(5, LOW) == 5
    assert turned_away(6, HIGH) == 3
    assert turned_away(7, NORMAL) == 2
    assert turned_away(8, NORMAL) == 8
    assert turned_away(9, HIGH) == 7


def test_a_queue_of_length_zero_still_fills_the_places() -> None:
    admission = Admission(Limits(places=2, waiting=0))
    assert [admission.add(id, NORMAL, probe=False, now=0) for id in (1, 2)] == [None, None]
    out = admission.add(3, NORMAL, probe=False, now=0)
    assert out is not None
    assert out.id == 3


def test_an_observer_waits_for_nobody_and_is_never_turned_away() -> None:
    admission = Admission(Limits(places=1, waiting=0))
    admission.add(1, HIGH, probe=False, now=0)
    assert admission.next() == 1
    for id in range(2, 3 + PROBE_PLACES):
        assert admission.add(id, LOW, probe=True, now=9) is None
    assert admission.next() == 2
    assert admission.waiting() == 0


def test_without_places_to_count_everybody_goes_at_once() -> None:
    admission = Admission(Limits(places=None, waiting=0))
    assert [admission.add(id, LOW, probe=False, now=0) for id in range(50)] == [None] * 50
    assert len(drain(admission)) == 50


def test_the_time_to_come_again_follows_from_the_pace() -> None:
    admission = Admission(Limits(places=1, waiting=100))
    assert admission.retry_after() == 1
    for id in range(10):
        admission.add(id, NORMAL, probe=False, now=0)
    for now in (2.0, 4.0, 6.0):
        id = admission.next()
        assert id is not None
        admission.leave(id, now)
    assert admission.retry_after() == 14
    for id in range(10, 60):
        admission.add(id, NORMAL, probe=False, now=6)
    assert admission.retry_after() == LONGEST_RETRY
