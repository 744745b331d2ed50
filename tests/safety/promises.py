"""What must hold in every schedule, and the records that it is judged by.

The records are of the simulated servers and of what people did, never of what an operator believes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tests.safety.servers import Chain, Server

from holdfast.api.regionplan import RegionTraffic, TrafficState
from holdfast.domain.failover import Order, allowed_drained

SEEN_WITHIN = 30.0
"""Seconds for which an observer's word may travel until it moves traffic."""


class Promise(StrEnum):
    """What was broken."""

    ONE_LEADER = "two leaders at one time"
    ONE_WRITER = "two writers of plans in one epoch"
    EPOCH_GROWS = "an epoch went back"
    FENCED = "a plan was acted on that was written after its region was sealed with a later epoch"
    DRAIN_CAP = "more regions drained than allowed"
    SOMEBODY_SERVES = "no region has traffic"
    SEEN_FAILING = "traffic moved although no majority saw the region fail"
    STAYS_DELETED = "a deleted service is back"
    STAYS_ALIVE = "a service is gone that nobody deleted"
    LOSS_REPORTED = "an edit was lost and not reported"
    LOSS_REAL = "an edit was reported lost that the winner had seen"
    CONVERGES = "regions do not come to agree"
    QUIET = "writes go on although nothing happens"


class Broken(AssertionError):
    """A promise that was broken, and how."""

    def __init__(self, promise: Promise, how: str) -> None:
        super().__init__(f"{promise}: {how}")
        self.promise = promise


@dataclass
class Promises:
    """The checks; each is told what just happened."""

    voters: int
    writers: dict[int, str] = field(default_factory=dict)
    elected: set[tuple[str, int]] = field(default_factory=set)
    accepted: dict[str, int] = field(default_factory=dict)
    seen_failing: dict[tuple[str, str], float] = field(default_factory=dict)
    """(observer, region) → when the observer last held it for Unhealthy."""
    dead: set[int] = field(default_factory=set)
    """Creations of which somebody deleted a copy."""
    counts: Counter[str] = field(default_factory=Counter)

    def leaders(self, leading: Iterable[tuple[str, int]]) -> None:
        """Who would write plans at this moment, as (identity, epoch)."""
        found = list(leading)
        self.elected.update(found)
        if len(found) > 1:
            raise Broken(Promise.ONE_LEADER, " and ".join(f"{name} (epoch {epoch})" for name, epoch in found))

    def plan_written(self, epoch: int, identity: str) -> None:
        first = self.writers.setdefault(epoch, identity)
        if first != identity:
            raise Broken(Promise.ONE_WRITER, f"{first} and {identity} in epoch {epoch}")

    def lease_written(self, region: str, before: int, after: int) -> None:
        if after < before:
            raise Broken(Promise.EPOCH_GROWS, f"the Lease of {region} went from epoch {before} to {after}")

    def acted(self, server: Server) -> None:
        """The server's region acts on a plan from now on."""
        assert server.acted
        epoch, last = server.acted.epoch, self.accepted.get(server.name, 0)
        if epoch < last:
            raise Broken(Promise.EPOCH_GROWS, f"{server.name} acted on epoch {last} and then on {epoch}")
        self.accepted[server.name] = epoch
        if server.plan and server.plan.generation == server.acted.generation and epoch < server.plan.sealed:
            raise Broken(Promise.FENCED, f"{server.name} was sealed with {server.plan.sealed}, the plan is of {epoch}")

    def decided(
        self,
        now: float,
        before: Sequence[RegionTraffic],
        after: Sequence[RegionTraffic],
        fraction: float,
        orders: dict[str, Order],
    ) -> None:
        """A leader decided on the traffic of all regions."""
        drained = {each.region for each in after if each.state is TrafficState.DRAINED}
        earlier = {each.region for each in before if each.state is TrafficState.DRAINED}
        new = drained - earlier
        self.counts["failovers"] += len(new)
        most = allowed_drained(len(after), fraction)
        regular = {name for name in drained if name not in new or not orders.get(name, Order()).override}
        if len(regular) > most and regular & new:
            raise Broken(Promise.DRAIN_CAP, f"{', '.join(sorted(drained))}; at most {most} may be")
        if after and any(each.weight for each in after) and not any(each.weight * each.percent for each in after):
            raise Broken(Promise.SOMEBODY_SERVES, ", ".join(each.region for each in after))
        for name in new:
            if orders.get(name, Order()).drain:
                continue
            saw = [o for (o, r), at in self.seen_failing.items() if r == name and now - at <= SEEN_WITHIN]
            if len(saw) <= self.voters // 2:
                raise Broken(Promise.SEEN_FAILING, f"{name} was drained; seen failing by {', '.join(saw) or 'nobody'}")

    def brought(self, region: str, own: Chain, source: Chain, reported: bool, unmarked: int) -> None:
        """A region's copy was replaced by another one's; `unmarked` edits were made there since its last stamp."""
        last = own[-1]
        if last.region != region or last.number == 0:
            # Whoever made the edit reports it. What was applied everywhere at first is in every region's hands: one
            # that is cut off during the next edit may report it lost, which is wrong but does no harm.
            return
        same = last.content == source[-1].content
        built_upon = last in source or same
        if reported and built_upon:
            raise Broken(Promise.LOSS_REAL, f"edit {last.number} of {region}")
        seen = sum(each.content == last.content for each in source)
        had = sum(each.content == last.content for each in own)
        # Of several edits since the last stamp only the last is known: that it returns to an earlier content is not.
        unknowable = unmarked > 1 and had > 1
        if not reported and not built_upon and seen < had and not unknowable:
            raise Broken(Promise.LOSS_REPORTED, f"edit {last.number} of {region}")

    def born(self, servers: Iterable[Server]) -> None:
        """A service was made that nobody deleted since."""
        for server in servers:
            if server.copy is None:
                raise Broken(Promise.STAYS_ALIVE, server.name)

    def survived(self, servers: Iterable[Server]) -> None:
        """What is left once all is well."""
        for server in servers:
            if server.copy is None and not self.dead:
                raise Broken(Promise.STAYS_ALIVE, server.name)
            if server.copy and server.copy.chain[-1].life in self.dead:
                raise Broken(Promise.STAYS_DELETED, server.name)
