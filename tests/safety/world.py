"""Some regions, their links and a clock: runs one story and checks the promises at every step.

Time is a number in a queue of events. A request reaches its server later than it was sent and its answer comes later
still, or never; a sleeping operator's writes leave it when it wakes.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Callable, Mapping
from typing import Any

from tests.safety.operators import Loop, Operator, Request
from tests.safety.promises import Broken, Promise, Promises
from tests.safety.servers import Edit, Server
from tests.safety.stories import CHAOS_SECONDS, Fault, Kind, Story

from holdfast.api.conditions import Reason
from holdfast.api.region import Verdict
from holdfast.api.regionplan import TrafficState
from holdfast.domain.failover import Order
from holdfast.domain.guards import ALL_GUARDS, Guard
from holdfast.domain.revision import digest

TIMEOUT = 1.5
"""Seconds that an operator waits for an answer."""
CONVERGED_WITHIN = 150.0
"""Seconds after healing within which all regions must agree."""
QUIET_SECONDS = 8.0


class World:
    """One run of a story."""

    def __init__(self, story: Story, guards: frozenset[Guard] = ALL_GUARDS) -> None:
        self.story, self.guards = story, guards
        self.rng = random.Random(story.seed)
        self.names, self.witness = story.regions, story.witness
        self.serving = tuple(name for name in self.names if name != self.witness)
        self.quorum = len(self.names) // 2 + 1
        self.now = 0.0
        self.steps = 0
        self.promises = Promises(len(self.names))
        careless = Guard.COMPARE_AND_SWAP not in guards
        self.servers = {name: Server(name, careless) for name in self.names}
        self.cut: set[frozenset[str]] = set()
        self.slow: set[str] = set()
        self.lossy: set[str] = set()
        self.failing: set[str] = set()
        self.said: list[str] = []
        self._queue: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = 0
        self._identities = 0
        self._edits = 0
        self._lives = 0
        self._texts: dict[str, str] = {}
        self.operators: dict[str, Operator | None] = dict.fromkeys(self.names)
        for name in self.names:
            self.start(name)
        self._apply_first()
        for fault in story.faults:
            self._at(fault.at, self._happen, fault)

    def run(self) -> None:
        """The whole story, healing, and the proof that all came to agree. Raises `Broken`."""
        self._run_until(8 + CHAOS_SECONDS)
        self.heal()
        self._come_to_agree()
        self.promises.survived(self.servers.values())
        if all(server.copy is None for server in self.servers.values()):
            self._create(self.servers[self.rng.choice(self.names)], 1)  # nothing may be left that kills a new one
            self._come_to_agree()
            self.promises.born(self.servers.values())
        before = self._written()
        self._run_until(self.now + QUIET_SECONDS)
        if self._written() != before:
            raise Broken(Promise.QUIET, f"{before} → {self._written()}")

    def _come_to_agree(self) -> None:
        began = self.now
        self._run_until(began + 3)
        while (why := self.disagreement()) and self.now - began < CONVERGED_WITHIN:
            self._run_until(self.now + 3)
        if why:
            raise Broken(Promise.CONVERGES, why)

    # Time

    def _at(self, time: float, act: Callable[..., object], *args: Any) -> None:
        self._order += 1
        heapq.heappush(self._queue, (time, self._order, act, args))

    def _run_until(self, end: float) -> None:
        while self._queue and self._queue[0][0] <= end:
            self.now, _, act, args = heapq.heappop(self._queue)
            self.steps += 1
            act(*args)
        self.now = end

    def _advance(self, operator: Operator, loop: Loop, slots: list[Any] | None) -> None:
        if not operator.alive:
            return
        if operator.paused_until > self.now:
            self._at(operator.paused_until, self._advance, operator, loop, slots)
            return
        try:
            answers = None if slots is None else [slot[1] if slot and slot[0] <= self.now else None for slot in slots]
            wanted = loop.send(answers) if answers is not None else next(loop)
        except StopIteration:
            return
        if isinstance(wanted, list):
            self._send(operator, loop, wanted)
        else:
            self._at(self.now + wanted, self._advance, operator, loop, None)

    def _send(self, operator: Operator, loop: Loop, requests: list[Request]) -> None:
        rng, now = self.rng, self.now
        slots: list[Any] = [None] * len(requests)
        end = now
        if operator.pause_at_plan and requests[0].plan:
            operator.paused_until, operator.pause_at_plan = now + operator.pause_at_plan, 0.0
        for place, request in enumerate(requests):
            name = request.region
            if not self.reaches(operator.region, name):
                end = max(end, now + TIMEOUT)
                continue
            arrives = now + rng.uniform(0.005, 0.05)
            if name in self.slow and rng.random() < 0.4:
                arrives = now + rng.uniform(0.3, 4.5)
            answered = arrives + 0.01
            if name in self.lossy and rng.random() < 0.3:
                answered = now + TIMEOUT + 1e6
                if rng.random() < 0.3:
                    end = max(end, now + TIMEOUT)
                    continue  # the request itself is lost
            end = max(end, min(answered, now + TIMEOUT))
            self._at(arrives, self._deliver, operator, request, slots, place, answered)
        self._at(end, self._advance, operator, loop, slots)

    def _deliver(self, operator: Operator, request: Request, slots: list[Any], place: int, answered: float) -> None:
        if operator.paused_until > self.now and operator.alive and request.write:
            wakes = operator.paused_until + 0.01  # it has not left the sleeping process yet
            self._at(wakes, self._deliver, operator, request, slots, place, max(answered, wakes))
            return
        if self.reaches(operator.region, request.region):
            slots[place] = (answered, request.act(self.servers[request.region]))

    # What holds now

    def reaches(self, one: str, other: str) -> bool:
        """Whether an operator of one region gets through to the other's API server."""
        return self.servers[other].up and (one == other or frozenset((one, other)) not in self.cut)

    def answers(self, observer: str, region: str) -> bool:
        """Whether a probe finds the region's engines."""
        linked = observer == region or frozenset((observer, region)) not in self.cut
        return region not in self.failing and linked

    def check_leaders(self) -> None:
        running = [each for each in self.operators.values() if each]
        self.promises.leaders((each.identity, epoch) for each in running if (epoch := each.leads()))

    def text(self, spec: Mapping[str, Any]) -> str:
        """The spec as JSON."""
        return json.dumps(spec)

    def disagreement(self) -> str:
        """Why the regions do not agree yet; empty if they do."""
        servers = list(self.servers.values())
        leaders = [(each, epoch) for each in self.operators.values() if each and (epoch := each.leads())]
        if len(leaders) != 1:
            return f"{len(leaders)} leaders"
        if stones := [each.name for each in servers if each.tombstone]:
            return f"tombstones in {', '.join(stones)}"
        if any(view.verdict is not Verdict.HEALTHY for each in servers for view in each.views.values()):
            return "some observer sees a region fail"
        copies = [each.read_copy() for each in servers]
        if not any(copies):
            return ""
        contents = {(each.version, self.text(each.spec), each.deleting) if each else None for each in copies}
        if len(contents) > 1:
            return f"copies differ: {contents}"
        first = copies[0]
        assert first
        plans = [each.plan for each in servers if each.name in self.serving]
        for server in servers:
            if server.name in self.serving and (
                not server.plan or not server.acted or server.acted.generation != server.plan.generation
            ):
                return f"{server.name} does not act on a plan"
        found = {(each.spec.epoch, each.spec.digest, each.spec.traffic) for each in plans if each}
        if len(found) != 1:
            return f"plans differ: {found}"
        [(epoch, content, traffic)] = found
        if epoch != leaders[0][1] or content != first.version.digest:
            return f"plans are of epoch {epoch} and content {content}"
        away = [
            each.region for each in traffic if each.state is not TrafficState.SERVING or each.reason != Reason.STEADY
        ]
        return f"{', '.join(away)} is not steady" if away else ""

    def _written(self) -> list[tuple[str, int, int, int]]:
        return [
            (
                each.name,
                each.plan.version if each.plan else 0,
                each.copy.version if each.copy else 0,
                each.status_version,
            )
            for each in self.servers.values()
        ]

    # What happens

    def start(self, region: str) -> None:
        if self.operators[region] is not None:
            return
        self._identities += 1
        operator = Operator(self, region, f"{region}/{self._identities}")
        self.operators[region] = operator
        for loop in operator.loops():
            self._at(self.now, self._advance, operator, loop, None)

    def crash(self, operator: Operator, restart_after: float) -> None:
        operator.alive = False
        self.operators[operator.region] = None
        self._at(self.now + restart_after, self.start, operator.region)

    def heal(self) -> None:
        """Everything works again, at once."""
        self.cut.clear()
        self.slow.clear()
        self.lossy.clear()
        self.failing.clear()
        for server in self.servers.values():
            server.up = True
            server.orders.clear()
        for name, operator in self.operators.items():
            if operator is None:  # it is started at the latest now
                self._at(self.now + 6, self.start, name)
            else:
                operator.paused_until, operator.pause_at_plan = min(operator.paused_until, self.now), 0.0

    def _happen(self, fault: Fault) -> None:
        region, end = fault.regions[0], fault.at + fault.seconds
        operator, server = self.operators[region], self.servers[region]
        match fault.kind:
            case Kind.CRASH:
                if operator:
                    self.crash(operator, fault.seconds)
            case Kind.PAUSE:
                if operator:
                    operator.paused_until = end
            case Kind.PAUSE_AT_PLAN:
                leader = next((each for each in self.operators.values() if each and each.leads()), operator)
                if leader:
                    leader.pause_at_plan = fault.seconds
            case Kind.RESIGN:
                if operator:
                    operator.resigning = True
            case Kind.CUT:
                self._during(end, self.cut, frozenset(fault.regions))
            case Kind.SPLIT:
                for one in fault.regions:
                    for other in set(self.names) - set(fault.regions):
                        self._during(end, self.cut, frozenset((one, other)))
            case Kind.DOWN:
                server.up = False
                self._at(end, setattr, server, "up", True)
            case Kind.SLOW:
                self._during(end, self.slow, region)
            case Kind.LOSSY:
                self._during(end, self.lossy, region)
            case Kind.FAIL:
                self._during(end, self.failing, region)
            case Kind.DRAIN | Kind.DRAIN_OVERRIDE:
                server.orders[region] = Order(drain=True, override=fault.kind is Kind.DRAIN_OVERRIDE)
                self._at(end, server.orders.pop, region, None)
            case Kind.EDIT:
                self._edit(server, fault.value)
            case Kind.CREATE:
                self._create(server, fault.value)
            case Kind.DELETE:
                self._delete(server)

    def _during(self, end: float, members: set[Any], member: Any) -> None:
        members.add(member)
        self._at(end, members.discard, member)

    # What people do

    def _apply_first(self) -> None:
        self._lives += 1
        for name in self.names if self.story.everywhere else self.names[:1]:
            spec = self._spec(1)
            edit = Edit(0, self.names[0], self._lives, digest(spec))
            self.servers[name].create(spec, None, (edit,))

    def _spec(self, value: int) -> dict[str, Any]:
        """What a person writes: few contents, so that an earlier one comes again now and then.

        Of seven, one sends traffic to a single region only and one leaves a region out.
        """
        chosen = self.serving[value % len(self.serving)]
        named = [name for name in self.serving if value != 7 or name != chosen]
        light = 0 if value == 6 else 50
        weights = {name: light if (name == chosen) == (value != 6) else 100 for name in named}
        return {
            "model": {"name": "tiny", "source": "file:///tiny", "maxModelLen": value},
            "engine": {"type": "openvino", "image": "engine"},
            "regions": [{"name": name, "weight": weight} for name, weight in weights.items()],
            "failover": {"failback": {"steps": [20, 100], "hold": "4s"}},
        }

    def _edit(self, server: Server, value: int) -> None:
        old, spec = server.copy, self._spec(value)
        if not server.up or old is None or old.deleting or old.spec == spec:
            return
        self._edits += 1
        self.promises.counts["edits"] += 1
        edit = Edit(self._edits, server.name, old.chain[-1].life, digest(spec))
        server.update(spec, old.stamp, (*old.chain, edit), None)

    def _create(self, server: Server, value: int) -> None:
        if not server.up or server.copy is not None:
            return
        self._edits += 1
        self._lives += 1
        self.promises.counts["creations"] += 1
        spec = self._spec(value)
        server.create(spec, None, (Edit(self._edits, server.name, self._lives, digest(spec)),))

    def _delete(self, server: Server) -> None:
        if server.up and server.copy is not None and not server.copy.deleting:
            self.promises.counts["deletions"] += 1
            self.promises.dead.add(server.copy.chain[-1].life)
            server.delete(None)
