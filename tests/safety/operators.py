"""One region's operator: the pure decisions of `holdfast.domain`, with reads and writes that take time between them.

Each loop is a generator: it yields a number (sleep for so many seconds) or a list of requests, and gets their answers;
None stands for an answer that did not come, whether or not the write happened.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tests.safety.servers import SERVICE, Chain, Server, Snapshot

from holdfast.api.conditions import Reason
from holdfast.api.llmservice import ActedPlan, LLMServiceSpec
from holdfast.api.region import Region, RegionSpec, Verdict
from holdfast.api.regionplan import RegionPlan, RegionPlanSpec
from holdfast.domain.copies import Copy
from holdfast.domain.failover import Order
from holdfast.domain.fence import admit
from holdfast.domain.health import Probe, Thresholds, Watching, after_probe, blind, closed_eyes, judge, restored
from holdfast.domain.lead import Service, last_traffic, lead
from holdfast.domain.leadership import Elector, LeaseWrite, Terms, preference_delay
from holdfast.domain.replication import (
    Bring,
    Copies,
    Held,
    Renew,
    Step,
    holders,
    next_step,
    next_tombstone,
    tombstone_of,
)

if TYPE_CHECKING:
    from tests.safety.world import World

THRESHOLDS = Thresholds(down=2.0, up=4.0)
HEARD_WITHIN = 15.0
"""Seconds without a new heartbeat after which an observer is not heard any more."""
TERMS = Terms()
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)

ANSWERS = Probe(True, Reason.ANSWERING, "It answers.")
FAILS = Probe(False, Reason.NO_ENGINE_ANSWERS, "No engine answers.")


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a region's API server."""

    region: str
    act: Callable[[Server], Any]
    write: bool = False
    plan: bool = False
    """Whether a plan is written: a pause can be aimed at it."""


Loop = Generator[float | list[Request], list[Any], None]


@lru_cache(maxsize=1024)
def parsed(content: str) -> LLMServiceSpec:
    return LLMServiceSpec.model_validate_json(content)


@lru_cache(maxsize=64)
def known_regions(names: tuple[str, ...], witness: str) -> Mapping[str, Region]:
    """The `Region` objects of a world."""

    def region(name: str) -> Region:
        role = "Witness" if name == witness else "Serving"
        return Region(name=name, spec=RegionSpec.parse({"gateway": {"address": name}, "role": role}))

    return {name: region(name) for name in names}


class Operator:
    """A process. A crash takes all of it; the next one has another identity."""

    def __init__(self, world: World, region: str, identity: str) -> None:
        self.world, self.region, self.identity = world, region, identity
        self.alive = True
        self.paused_until = 0.0
        self.pause_at_plan = 0.0
        """Seconds to sleep at the next write of a plan, while that write is under way."""
        self.resigning = False
        self.offset = world.rng.uniform(0, 1000)
        self.rate = world.rng.uniform(0.99, 1.01)
        self.wall_skew = world.rng.uniform(-1, 1)
        preferences = dict.fromkeys(world.names, 100)
        self.elector = Elector(
            me=identity,
            voters=world.names,
            terms=TERMS,
            jitter=world.rng.random,
            guards=world.guards,
            delay=preference_delay(region, preferences),
        )
        self.watching: dict[str, Watching] = {}
        self.beats_seen: dict[str, str] = {}
        self.heard_at: dict[str, float] = {}
        self.seen: dict[str, Snapshot] = {}
        self.current: set[str] = set()
        self.decided: object = None
        self.decide_again: float | None = None
        self.beats = 0

    @property
    def now(self) -> float:
        """Its own monotonic clock."""
        return self.offset + self.world.now * self.rate

    def leads(self) -> int | None:
        """The epoch that it would write plans with at this moment."""
        return self.elector.leading(self.now) if self.alive else None

    def loops(self) -> tuple[Loop, ...]:
        return self.elect(), self.work(), self.act()

    # Electing

    def elect(self) -> Loop:
        rng = self.world.rng
        yield rng.uniform(0, 1)
        while True:
            answers = yield [
                Request(voter, lambda server: (server.lease, server.lease_version)) for voter in self.world.names
            ]
            for voter, answer in zip(self.world.names, answers, strict=True):
                if answer:
                    lease, version = answer
                    self.elector.saw(voter, lease, str(version) if version else "", self.now)
            writes = self.elector.resign(self.now) if self.resigning else self.elector.wanted(self.now)
            self.world.check_leaders()
            if writes:
                sent = self.now
                answers = yield [self._lease_write(write) for write in writes]
                for write, version in zip(writes, answers, strict=True):
                    self.elector.wrote(write, version, sent, self.now)
            if self.resigning:
                self.world.crash(self, restart_after=6.0)
                return
            yield TERMS.retry * rng.uniform(0.8, 1.0)

    def _lease_write(self, write: LeaseWrite) -> Request:
        def act(server: Server) -> str | None:
            before = server.lease.epoch
            version = server.write_lease(write)
            if version is not None:
                self.world.promises.lease_written(server.name, before, server.lease.epoch)
            return version

        return Request(write.voter, act, write=True)

    # Working: observe, replicate, lead

    def work(self) -> Loop:
        rng = self.world.rng
        yield rng.uniform(0, 1.5)
        [own] = yield [Request(self.region, Server.read)]
        if own:
            self.watching = {
                name: restored(view.verdict, view.reason, view.message) for name, view in own.views.items()
            }
        while True:
            self._observe()
            yield [self._publish()]
            epoch = self.elector.leading(self.now)
            answers = yield [Request(name, Server.read) for name in self.world.names]
            self.current = {name for name, answer in zip(self.world.names, answers, strict=True) if answer}
            for name, answer in zip(self.world.names, answers, strict=True):
                self._hear(name, answer)
            if self.region in self.current:
                yield from self._replicate()
            if epoch is not None:
                yield from self._lead(epoch)
            yield rng.uniform(1.2, 1.6)

    def _hear(self, name: str, answer: Snapshot | None) -> None:
        """Only a heartbeat that changed between two looks proves life: the first after a while may be an old one."""
        if answer is None:
            self.beats_seen.pop(name, None)
            return
        if self.beats_seen.get(name, answer.heartbeat) != answer.heartbeat:
            self.heard_at[name] = self.now
        self.beats_seen[name] = answer.heartbeat
        self.seen[name] = answer

    def _observe(self) -> None:
        world = self.world
        probes = {name: ANSWERS if world.answers(self.region, name) else FAILS for name in world.serving}
        sees_nobody = blind(probes.values())
        for name, probe in probes.items():
            before = self.watching.get(name, Watching())
            self.watching[name] = (
                closed_eyes(before, "") if sees_nobody else after_probe(before, probe, self.now, THRESHOLDS)
            )
            if self.watching[name].verdict is Verdict.UNHEALTHY:
                world.promises.seen_failing[self.region, name] = world.now

    def _publish(self) -> Request:
        self.beats += 1
        beat, views = f"{self.identity}-{self.beats}", dict(self.watching)
        seen = self._copies()
        own = seen.own.copy
        held = own.version.digest if own and len(holders(seen, own.version)) >= self.world.quorum else ""

        def act(server: Server) -> bool:
            server.heartbeat, server.views = beat, views
            if held and server.copy:
                server.majority_digest = held
            return True

        return Request(self.region, act, write=True)

    def _copies(self) -> Copies:
        def held(name: str) -> Held:
            seen = self.seen.get(name)
            return Held(name in self.current, seen.copy, seen.tombstone) if seen else Held(current=False)

        peers = {name: held(name) for name in self.world.names if name != self.region}
        return Copies(SERVICE, self.region, held(self.region), peers)

    def _replicate(self) -> Loop:
        copies, own = self._copies(), self.seen[self.region]
        status_version = own.status_version
        if own.copy and own.copy.deleting:
            listed = own.tombstone is not None and own.tombstone.uid == own.copy.uid
            if not listed:
                tombstone = tombstone_of(SERVICE, own.copy, copies)
                answers = yield [self._tombstone_write(tombstone, status_version)]
                listed = answers[0] is not None
            if listed:
                uid = own.copy.uid
                yield [Request(self.region, lambda server: server.let_go(uid), write=True)]
            return
        step = next_step(copies, self.world.guards)
        if step:
            yield [self._step(step, own.copy)]
        wanted = next_tombstone(copies)
        if wanted != own.tombstone:
            yield [self._tombstone_write(wanted, status_version)]

    def _tombstone_write(self, tombstone: Any, version: int) -> Request:
        return Request(self.region, lambda server: server.write_tombstone(tombstone, version), write=True)

    def _step(self, step: Step, own: Copy | None) -> Request:
        promises = self.world.promises
        if isinstance(step, Bring):
            source, chain = step.source, self.seen[step.source.region].chain

            def bring(server: Server) -> bool:
                copy = server.copy
                before: Chain = copy.chain if copy else ()
                unmarked = copy.generation - (copy.stamp.generation if copy.stamp else 1) if copy else 0
                if own is None:
                    return server.create(source.spec, step.stamp, chain)
                done = server.update(source.spec, step.stamp, chain, own.resource_version)
                if done and not server.careless:
                    promises.brought(server.name, before, chain, step.lost is not None, unmarked)
                return done

            return Request(self.region, bring, write=True)
        assert own
        if isinstance(step, Renew):

            def renew(server: Server) -> bool:
                chain = server.copy.chain if server.copy else ()
                return server.update(own.spec, step.stamp, chain, own.resource_version)

            return Request(self.region, renew, write=True)
        return Request(self.region, lambda server: server.delete(own.resource_version), write=True)

    def _lead(self, epoch: int) -> Loop:
        if self.elector.leading(self.now) != epoch:
            return
        copies = self._copies()
        accepted = self._held_by_majority(copies)
        plans = {name: seen.plan for name, seen in self.seen.items() if seen.plan}
        if accepted is None or any(plan.spec.epoch > epoch for plan in plans.values()):
            return
        service = self._service(epoch, accepted, plans)
        key = (
            service.version,
            epoch,
            {name: plan.resource_version for name, plan in plans.items()},
            [seen.copy.uid for seen in self.seen.values() if seen.copy],
            service.health,
            service.orders,
            sorted(self.current),
            sorted(self.elector.held),
        )
        if key == self.decided and (self.decide_again is None or self.world.now < self.decide_again):
            return
        decision = lead(service, self.world.guards)
        self.decided = key
        self.decide_again = self.world.now + decision.again.total_seconds() if decision.again is not None else None
        some = next(iter(decision.plans.values()))
        fraction = service.spec.failover.max_drained_fraction
        self.world.promises.decided(self.world.now, last_traffic(service), some.traffic, fraction, dict(service.orders))
        writes = [
            self._plan_write(name, spec, plans.get(name))
            for name, spec in decision.plans.items()
            if name in self.current
            and self.seen[name].copy is not None
            and self.elector.sealed(name, self.now)
            and (name not in plans or plans[name].spec != spec)
        ]
        if writes:
            answers = yield writes
            if not all(answers):
                self.decided = None

    def _held_by_majority(self, copies: Copies) -> Copy | None:
        found = [each.copy for each in copies.everywhere.values() if each.current and each.copy]
        found = [each for each in found if len(holders(copies, each.version)) >= self.world.quorum]
        return max(found, key=lambda copy: copy.version, default=None)

    def _service(self, epoch: int, accepted: Copy, plans: Mapping[str, RegionPlan]) -> Service:
        world = self.world
        heard = [name for name, at in self.heard_at.items() if self.now - at <= HEARD_WITHIN]
        health = {
            region: judge(
                region, {o: self.seen[o].views[region] for o in heard if region in self.seen[o].views}, len(world.names)
            )
            for region in world.serving
        }
        orders: dict[str, Order] = {}
        for name in self.current:
            orders.update(self.seen[name].orders)
        return Service(
            now=BEGINNING + timedelta(seconds=world.now + self.wall_skew),
            region=self.region,
            epoch=epoch,
            name="chat",
            version=accepted.version,
            spec=parsed(world.text(accepted.spec)),
            regions=known_regions(world.names, world.witness),
            engine_images={"openvino": "engine"},
            plans=dict(plans),
            health=health,
            orders=orders,
        )

    def _plan_write(self, region: str, spec: RegionPlanSpec, before: RegionPlan | None) -> Request:
        version = int(before.resource_version) if before else 0

        def act(server: Server) -> bool:
            done = server.write_plan(spec, version)
            if done:
                self.world.promises.plan_written(spec.epoch, self.identity)
            return done

        return Request(region, act, write=True, plan=True)

    # Acting on the own region's plan

    def act(self) -> Loop:
        rng = self.world.rng
        yield rng.uniform(0, 1.5)
        while True:
            [found] = yield [Request(self.region, lambda server: (server.plan, server.acted, server.copy))]
            if found and found[0] and found[2]:
                plan, acted, copy = found
                # The Lease is read after the plan: a plan that was written after the seal is then known as such.
                [sealed] = yield [Request(self.region, lambda server: (server.lease.epoch,))]
                if sealed:
                    admission = admit(plan.read(), sealed[0], acted, self.world.guards)
                    if admission.admitted and (acted is None or acted.generation != plan.generation):
                        yield [self._acted_write(plan.read(), acted, copy.uid)]
            yield rng.uniform(1.2, 1.8)

    def _acted_write(self, plan: RegionPlan, before: ActedPlan | None, uid: str) -> Request:
        acted = ActedPlan(epoch=plan.spec.epoch, generation=plan.generation, leader=plan.spec.leader)

        def act(server: Server) -> bool:
            done = server.write_acted(acted, before, uid)
            if done:
                self.world.promises.acted(server)
            return done

        return Request(self.region, act, write=True)
