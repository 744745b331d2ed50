"""Who leads: the operator that holds the Leases of a majority of the voters.

Each voter is a region's API server with one Lease. All times are of the own monotonic clock, in seconds: a Lease is
free to others once it was *seen* unchanged for its duration, and a leader counts its time from before it *sent* the
renewal, so no two clocks are ever compared. Nothing here reads a clock or writes a Lease: `wanted` says what to write,
`saw` and `wrote` say what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from holdfast.domain.guards import ALL_GUARDS, Guard


@dataclass(frozen=True)
class Terms:
    """How long what lasts, in seconds. The defaults are those of Kubernetes' own leader election."""

    duration: float = 15.0
    """How long a Lease must be seen unchanged before somebody else may take it."""
    renew_deadline: float = 10.0
    """How long after its last renewal by a majority a leader goes on."""
    retry: float = 2.0
    """How often Leases are read and renewed."""
    bid_seconds: float = 3.0
    """How long a bid may take until it is withdrawn."""


@dataclass(frozen=True)
class Lease:
    """One voter's Lease."""

    holder: str = ""
    """Who holds it; empty if it was given back."""
    epoch: int = 0
    """The largest epoch that the voter has seen."""


@dataclass(frozen=True)
class Sighting:
    """A voter's Lease, and since when it was seen like that."""

    lease: Lease
    version: str
    """Resource version, another one after every write; empty if the Lease does not exist yet."""
    since: float
    """When it was first seen like that."""
    at: float
    """When it was last read."""


@dataclass(frozen=True)
class LeaseWrite:
    """Write this Lease, if it is still at this version."""

    voter: str
    lease: Lease
    version: str


@dataclass
class Elector:
    """One operator's part in the election."""

    me: str
    voters: tuple[str, ...]
    terms: Terms = Terms()
    jitter: Callable[[], float] = lambda: 0.5
    """A number from 0 to 1, so that two bidders do not meet again and again."""
    guards: frozenset[Guard] = ALL_GUARDS
    delay: float = 0.0
    """How much longer than others it waits before it bids, in seconds."""
    sightings: dict[str, Sighting] = field(default_factory=dict)
    epoch: int | None = None
    """The epoch that it bids for or leads with."""
    bid_at: float = 0.0
    won: bool = False
    quiet_until: float = 0.0
    free_since: float | None = None
    held: dict[str, float] = field(default_factory=dict)
    """Voter → when the last successful write of the own epoch was sent."""

    @property
    def quorum(self) -> int:
        """How many voters are a majority."""
        return len(self.voters) // 2 + 1 if Guard.MAJORITY in self.guards else 1

    def saw(self, voter: str, lease: Lease, version: str, now: float) -> None:
        """The voter's Lease was read; a Lease that does not exist is an empty one of version ""."""
        before = self.sightings.get(voter)
        same = before is not None and before.version == version
        self.sightings[voter] = Sighting(lease, version, before.since if same and before else now, now)
        if voter in self.held and (lease.holder != self.me or lease.epoch != self.epoch):
            del self.held[voter]

    def wrote(self, write: LeaseWrite, version: str | None, sent: float, now: float) -> None:
        """What came of a write: the new version, or None if it failed or nobody knows."""
        if version is None:
            self.held.pop(write.voter, None)
            return
        self.sightings[write.voter] = Sighting(write.lease, version, now, now)
        if write.lease.holder == self.me and write.lease.epoch == self.epoch:
            self.held[write.voter] = sent
            self.won = self.won or len(self.held) >= self.quorum

    def leading(self, now: float) -> int | None:
        """The epoch to write plans with at this moment, if any."""
        if self.epoch is None or not self.won:
            return None
        return self.epoch if self._valid(now) else None

    def sealed(self, voter: str, now: float) -> bool:
        """Whether plans may be written there: the voter's Lease carries the own epoch."""
        return self.leading(now) is not None and voter in self.held

    def wanted(self, now: float) -> list[LeaseWrite]:
        """What to write now."""
        if self.epoch is not None:
            self._judge(now)
        if self.epoch is None:
            self._bid(now)
        if self.epoch is None:
            return self._returns()
        return [self._take(voter) for voter in self.voters if self._may_take(voter, now)]

    def resign(self, now: float) -> list[LeaseWrite]:
        """Give every Lease back, for a clean hand-over; the epoch stays in it."""
        self._give_up(now, pause=self.terms.duration)
        return self._returns()

    def step_down(self, now: float) -> None:
        """Stop leading; what is still held is given back by the next writes."""
        self._give_up(now, pause=self.terms.retry)

    def largest_epoch(self) -> int:
        """The largest epoch seen at any voter."""
        return max((sighting.lease.epoch for sighting in self.sightings.values()), default=0)

    def _judge(self, now: float) -> None:
        overtaken = Guard.EPOCH_GROWS in self.guards and self.epoch is not None and self.largest_epoch() > self.epoch
        failed = not self.won and now - self.bid_at > self.terms.bid_seconds
        if overtaken or failed or (self.won and not self._valid(now)):
            self._give_up(now, pause=self.terms.retry * (0.5 + self.jitter()))

    def _valid(self, now: float) -> bool:
        sent = sorted((at for voter, at in self.held.items() if voter in self.voters), reverse=True)
        if len(sent) < self.quorum:
            return False
        return Guard.RENEW_DEADLINE not in self.guards or now - sent[self.quorum - 1] < self.terms.renew_deadline

    def _give_up(self, now: float, pause: float) -> None:
        self.epoch, self.won, self.held, self.free_since = None, False, {}, None
        self.quiet_until = now + pause

    def _bid(self, now: float) -> None:
        fresh = [voter for voter in self.voters if self._readable(voter, now)]
        free = [voter for voter in fresh if self._free(voter, now)]
        if now < self.quiet_until or len(free) < self.quorum or len(fresh) < self.quorum:
            self.free_since = None
            return
        self.free_since = now if self.free_since is None else self.free_since
        if now - self.free_since < self.delay:
            return
        epoch = self.largest_epoch()
        self.epoch = epoch + 1 if Guard.EPOCH_GROWS in self.guards else max(1, epoch)
        self.bid_at, self.won, self.held = now, False, {}

    def _readable(self, voter: str, now: float) -> bool:
        sighting = self.sightings.get(voter)
        return sighting is not None and now - sighting.at <= 2 * self.terms.retry

    def _free(self, voter: str, now: float) -> bool:
        sighting = self.sightings[voter]
        if sighting.lease.holder in ("", self.me):
            return True
        return Guard.LEASE_PATIENCE not in self.guards or now - sighting.since >= self.terms.duration

    def _may_take(self, voter: str, now: float) -> bool:
        return self._readable(voter, now) and self._free(voter, now) and self._grants(voter)

    def _grants(self, voter: str) -> bool:
        """Whether the voter can still give the own epoch: to one bidder only, or two could win with the same one.

        Whoever has won may collect the rest, as nobody else can win with this epoch any more.
        """
        assert self.epoch is not None
        lease = self.sightings[voter].lease
        own = lease == Lease(self.me, self.epoch)
        return self.won or own or lease.epoch < self.epoch or Guard.EPOCH_GROWS not in self.guards

    def _take(self, voter: str) -> LeaseWrite:
        assert self.epoch is not None
        sighting = self.sightings[voter]
        return LeaseWrite(voter, Lease(self.me, self.epoch), sighting.version)

    def _returns(self) -> list[LeaseWrite]:
        """What is still held of an earlier leadership or of a bid that failed."""
        return [
            LeaseWrite(voter, Lease("", sighting.lease.epoch), sighting.version)
            for voter, sighting in self.sightings.items()
            if sighting.lease.holder == self.me
        ]


def preference_delay(me: str, preferences: Mapping[str, int], step: float = 0.3) -> float:
    """How long an operator lets more preferred regions bid first, in seconds: one step for each of them."""
    order = sorted(preferences, key=lambda name: (-preferences[name], name))
    return step * order.index(me) if me in order else step * len(order)
