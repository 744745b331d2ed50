"""The promises hold in random stories, and each guard is there for one of them: without it a story breaks it.

`make test-safety` plays many more stories.
"""

from __future__ import annotations

import pytest
from tests.safety.promises import Promise
from tests.safety.run import find, play, shrink
from tests.safety.stories import Fault, Kind, Story, story

from holdfast.domain.guards import ALL_GUARDS, Guard

STORIES = 150
BOUND = 400
"""Stories within which a missing guard must show."""

BREAKS = {
    Guard.MAJORITY: {Promise.ONE_LEADER, Promise.ONE_WRITER},
    Guard.LEASE_PATIENCE: {Promise.ONE_LEADER},
    Guard.RENEW_DEADLINE: {Promise.ONE_LEADER},
    Guard.EPOCH_GROWS: {Promise.ONE_WRITER},
    Guard.SEAL: {Promise.FENCED},
    Guard.COMPARE_AND_SWAP: {Promise.ONE_LEADER, Promise.ONE_WRITER, Promise.EPOCH_GROWS},
    Guard.TOMBSTONES_WIN: {Promise.STAYS_DELETED},
    Guard.DRAIN_CAP: {Promise.DRAIN_CAP},
    Guard.UNKNOWN_STAYS: {Promise.SEEN_FAILING},
    Guard.LAST_REGION_STAYS: {Promise.SOMEBODY_SERVES},
}
"""What a story is seen to break once a guard is left out."""


def test_no_random_story_breaks_a_promise() -> None:
    for seed in range(STORIES):
        _, failure = play(story(seed))
        assert failure is None, f"{failure}"


@pytest.mark.parametrize("guard", list(Guard))
def test_without_a_guard_some_story_breaks_its_promise(guard: Guard) -> None:
    """No guard covers for another one: each is left out alone."""
    without = ALL_GUARDS - {guard}

    failure = find(range(BOUND), without, frozenset(BREAKS[guard]))

    assert failure is not None, f"{BOUND} stories did not need {guard}"
    told = shrink(failure, without)
    assert play(told.story)[1] is None, f"with all guards this must hold:\n{told}"


def test_a_story_is_told_the_same_way_each_time() -> None:
    first, second = play(story(7)), play(story(7))

    assert first == second
    assert str(story(7)) == str(story(7))


def regions_3(*faults: Fault, witness: str = "", everywhere: bool = True) -> Story:
    return Story(1, ("us-east", "eu-west", "ap-south"), witness, everywhere, faults)


DIRECTED = {
    "a leader sleeps past its leases while it writes, and wakes beside its successor": regions_3(
        Fault(12, Kind.FAIL, ("eu-west",), 30),
        Fault(12, Kind.PAUSE_AT_PLAN, ("us-east",), 35),
        Fault(20, Kind.EDIT, ("ap-south",), value=3),
    ),
    "both sides of a partition edit": regions_3(
        Fault(10, Kind.SPLIT, ("us-east",), 20),
        Fault(12, Kind.EDIT, ("us-east",), value=2),
        Fault(13, Kind.EDIT, ("us-east",), value=3),
        Fault(14, Kind.EDIT, ("eu-west",), value=4),
    ),
    "a region is away when the service is deleted, and has an edit of its own": regions_3(
        Fault(10, Kind.SPLIT, ("ap-south",), 30),
        Fault(12, Kind.DELETE, ("us-east",)),
        Fault(15, Kind.EDIT, ("ap-south",), value=5),
    ),
    "a service is made again while a region is away that has the old one": regions_3(
        Fault(10, Kind.SPLIT, ("ap-south",), 35),
        Fault(12, Kind.DELETE, ("us-east",)),
        Fault(18, Kind.CREATE, ("us-east",), value=2),
        Fault(20, Kind.EDIT, ("ap-south",), value=3),
    ),
    "a service is made again in two regions at once": regions_3(
        Fault(12, Kind.DELETE, ("us-east",)),
        Fault(15.8, Kind.CREATE, ("us-east",), value=2),
        Fault(15.8, Kind.CREATE, ("eu-west",), value=3),
    ),
    "an edit leaves out all regions but a drained one": regions_3(
        Fault(10, Kind.FAIL, ("us-east",), 30),
        Fault(25, Kind.EDIT, ("eu-west",), value=6),
        Fault(30, Kind.EDIT, ("eu-west",), value=7),
        witness="ap-south",
    ),
    "every region fails": regions_3(
        *(Fault(10, Kind.FAIL, (name,), 25) for name in ("us-east", "eu-west", "ap-south"))
    ),
    "somebody orders every region out, whatever the cap says": regions_3(
        *(Fault(10, Kind.DRAIN_OVERRIDE, (name,), 25) for name in ("us-east", "eu-west", "ap-south"))
    ),
    "a leader hands over during an edit and a failure": regions_3(
        *(Fault(10, Kind.RESIGN, (name,)) for name in ("us-east", "eu-west", "ap-south")),
        Fault(11, Kind.EDIT, ("us-east",), value=2),
        Fault(12, Kind.FAIL, ("us-east",), 12),
    ),
    "an API server comes back with the Lease of a leader that is gone": regions_3(
        Fault(10, Kind.DOWN, ("ap-south",), 40),
        Fault(11, Kind.CRASH, ("us-east",), 25),
        Fault(14, Kind.CRASH, ("eu-west",), 10),
    ),
}


@pytest.mark.parametrize("told", DIRECTED.values(), ids=DIRECTED)
def test_the_promises_hold_when(told: Story) -> None:
    for seed in range(6):  # the same story with other delays
        _, failure = play(Story(seed, told.regions, told.witness, told.everywhere, told.faults))
        assert failure is None, f"{failure}"
