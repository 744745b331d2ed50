"""Who leads: bids, renewals, hand-over, and what answers that never came do to them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.leadership import Elector, Lease, LeaseWrite, preference_delay

VOTERS = ("us-east", "eu-west", "ap-south")


class Voters:
    """Three Leases with compare-and-swap."""

    def __init__(self) -> None:
        self.leases: dict[str, tuple[Lease, int]] = dict.fromkeys(VOTERS, (Lease(), 0))

    def show(self, elector: Elector, now: float, voters: Sequence[str] = VOTERS) -> None:
        for voter in voters:
            lease, version = self.leases[voter]
            elector.saw(voter, lease, str(version) if version else "", now)

    def write(self, write: LeaseWrite) -> str | None:
        _, version = self.leases[write.voter]
        if write.version != (str(version) if version else ""):
            return None
        self.leases[write.voter] = (write.lease, version + 1)
        return str(version + 1)

    def turn(self, elector: Elector, now: float, voters: Sequence[str] = VOTERS) -> None:
        """One look and one round of writes at some voters."""
        self.show(elector, now, voters)
        for write in elector.wanted(now):
            if write.voter in voters:
                elector.wrote(write, self.write(write), now, now)

    def epochs(self) -> list[int]:
        return [lease.epoch for lease, _ in self.leases.values()]

    def holders(self) -> list[str]:
        return [lease.holder for lease, _ in self.leases.values()]


def elector(name: str = "a") -> Elector:
    return Elector(name, VOTERS)


def test_free_leases_are_taken_at_once_and_make_a_leader_of_epoch_one() -> None:
    voters, a = Voters(), elector()

    voters.turn(a, 0)

    assert a.leading(0) == 1
    assert all(a.sealed(voter, 0) for voter in VOTERS)


def test_a_majority_is_enough_and_the_rest_is_not_sealed() -> None:
    voters, a = Voters(), elector()

    voters.turn(a, 0, VOTERS[:2])

    assert a.leading(0) == 1
    assert not a.sealed("ap-south", 0)


def test_a_minority_is_not_enough() -> None:
    voters, a = Voters(), elector()

    for now in range(0, 60, 2):
        voters.turn(a, now, VOTERS[:1])

    assert a.leading(60) is None
    assert voters.holders() == ["", "", ""]


def test_a_lease_is_taken_only_after_it_was_seen_unchanged_for_its_duration() -> None:
    voters, a, b = Voters(), elector("a"), elector("b")
    voters.turn(a, 0)

    for now in range(100, 115, 2):  # another clock
        voters.turn(b, now)
        assert b.leading(now) is None
    voters.turn(b, 116)

    assert b.leading(116) == 2


def test_a_leader_that_renews_is_never_replaced() -> None:
    voters, a, b = Voters(), elector("a"), elector("b")

    for now in range(0, 120, 2):
        voters.turn(a, now)
        voters.turn(b, now)

    assert a.leading(119) == 1
    assert b.leading(119) is None


def test_a_leader_counts_from_before_it_sent_the_renewal_and_ends_before_others_may_begin() -> None:
    voters, a = Voters(), elector()
    voters.turn(a, 0)

    assert a.leading(9.9) == 1
    assert a.leading(10) is None


def test_a_write_whose_answer_was_lost_is_found_out_and_counted() -> None:
    voters, a = Voters(), elector()
    voters.show(a, 0)
    for write in a.wanted(0):
        voters.write(write)
        a.wrote(write, None, 0, 2)
    assert a.leading(2) is None

    voters.turn(a, 2)

    assert a.leading(2) == 1
    assert voters.epochs() == [1, 1, 1]


def test_a_renewal_whose_answer_was_lost_ends_the_leadership_until_it_is_repeated() -> None:
    voters, a = Voters(), elector()
    voters.turn(a, 0)
    voters.show(a, 2)
    for write in a.wanted(2):
        voters.write(write)
        a.wrote(write, None, 2, 3)

    assert a.leading(3) is None
    voters.turn(a, 10)
    voters.turn(a, 14)
    assert a.leading(14) is not None


def test_a_bid_that_fails_is_withdrawn_and_the_next_has_a_larger_epoch() -> None:
    voters, a = Voters(), elector()
    voters.show(a, 0)
    first = a.wanted(0)[0]
    a.wrote(first, voters.write(first), 0, 0)
    for write in a.wanted(0)[1:]:
        a.wrote(write, None, 0, 0)

    voters.turn(a, 4)
    assert voters.holders() == ["", "", ""]
    voters.turn(a, 6)

    assert a.leading(6) == 2


def test_a_voter_gives_an_epoch_to_one_bidder_only() -> None:
    voters, a, b = Voters(), elector("a"), elector("b")
    voters.show(b, 0)
    assert {write.lease.epoch for write in b.wanted(0)} == {1}  # b bids for 1, and its writes are slow
    voters.turn(a, 0)
    assert a.leading(0) == 1
    for write in a.resign(1):  # a leads with 1, and hands over
        a.wrote(write, voters.write(write), 1, 1)

    voters.turn(b, 2)
    assert b.leading(2) is None, "epoch 1 is spent"
    for now in (4, 6, 8):
        voters.turn(b, now)

    assert b.leading(8) == 2


def test_a_leader_collects_a_voter_that_a_failed_bidder_of_the_same_epoch_gave_back() -> None:
    voters, a = Voters(), elector("a")
    voters.turn(a, 0, VOTERS[:2])
    voters.leases["ap-south"] = (Lease("", 1), 2)

    voters.turn(a, 2)

    assert a.sealed("ap-south", 2)


def test_a_voter_that_comes_back_with_a_dead_leaders_lease_is_taken_after_its_duration() -> None:
    voters, a = Voters(), elector("a")
    voters.leases["ap-south"] = (Lease("dead", 4), 9)
    for now in range(0, 20, 2):
        voters.turn(a, now, VOTERS[:2])
    assert a.leading(18) == 1

    for now in range(20, 60, 2):
        voters.turn(a, now)

    assert a.leading(58) == 5, "the epoch that was found there is larger: a new leadership begins"
    assert a.sealed("ap-south", 58)


def test_who_sees_a_larger_epoch_stops() -> None:
    voters, a = Voters(), elector("a")
    voters.turn(a, 0)
    a.saw("ap-south", Lease("b", 2), "7", 2)

    a.wanted(2)

    assert a.leading(2) is None


def test_resigning_frees_the_leases_at_once_and_keeps_the_epoch_in_them() -> None:
    voters, a, b = Voters(), elector("a"), elector("b")
    voters.turn(a, 0)
    voters.show(b, 1)
    writes = a.resign(1)
    assert a.leading(1) is None, "before anything is given back"
    for write in writes:
        a.wrote(write, voters.write(write), 1, 1)

    voters.turn(a, 2)
    voters.turn(b, 2)

    assert voters.holders() == ["b", "b", "b"]
    assert b.leading(2) == 2


def test_a_lease_that_is_no_voters_any_more_does_not_count() -> None:
    voters, a = Voters(), elector("a")
    voters.turn(a, 0, VOTERS[:2])

    a.voters = ("us-east", "ap-south", "sa-east")

    assert a.leading(1) is None


def test_an_operator_that_is_preferred_less_lets_others_bid_first() -> None:
    voters, a = Voters(), elector("a")
    a.delay = 3

    voters.turn(a, 0)
    assert voters.holders() == ["", "", ""]
    voters.turn(a, 2)
    voters.turn(a, 4)

    assert a.leading(4) == 1


@pytest.mark.parametrize(("me", "delay"), [("b", 0.0), ("a", 0.5), ("c", 1.0), ("unknown", 1.5)])
def test_the_delay_grows_with_each_region_that_is_preferred(me: str, delay: float) -> None:
    assert preference_delay(me, {"a": 1, "b": 9, "c": 1}, step=0.5) == delay


TURNS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.floats(0.1, 6),
        st.sets(st.sampled_from(VOTERS), min_size=1),
        st.sets(st.sampled_from(VOTERS)),
        st.sampled_from(["turn", "turn", "turn", "resign", "slow"]),
    ),
    max_size=60,
)


@given(TURNS)
def test_whatever_is_lost_or_late_two_never_lead_and_no_epoch_is_led_twice(
    turns: list[tuple[str, float, set[str], set[str], str]],
) -> None:
    """Each turn reaches some voters; some answers are lost, and slow writes arrive one turn later."""
    voters = Voters()
    electors = {name: elector(name) for name in "abc"}
    led: dict[int, str] = {}
    now, late = 0.0, list[tuple[Elector, LeaseWrite, float]]()
    for name, passed, reached, unanswered, how in turns:
        now += passed
        arrived, late = late, []
        for bidder, write, sent in arrived:
            bidder.wrote(write, voters.write(write), sent, now)
        one = electors[name]
        voters.show(one, now, sorted(reached))
        for write in one.resign(now) if how == "resign" else one.wanted(now):
            if write.voter not in reached:
                one.wrote(write, None, now, now)
            elif how == "slow":
                late.append((one, write, now))
            else:
                before = voters.leases[write.voter][0].epoch
                version = voters.write(write)
                assert voters.leases[write.voter][0].epoch >= before
                one.wrote(write, None if write.voter in unanswered else version, now, now)
        leading = [(each.me, epoch) for each in electors.values() if (epoch := each.leading(now))]
        assert len(leading) <= 1
        for leader, epoch in leading:
            assert led.setdefault(epoch, leader) == leader
