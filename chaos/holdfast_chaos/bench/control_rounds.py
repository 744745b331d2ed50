"""The single measurements of the control plane; each takes a running fleet and leaves it well."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import psutil

from holdfast_testbed.progress import Update

from .benchmark import BenchError, Json
from .figures import Figure, grown, held_by, mean_grown, planned, traffic_is
from .fleet import Fleet, Operator, wait_for
from .follow import PLAN, ROUTE, SERVICE, percent_is
from .gateway_stand_in import HANG, RECOVER
from .processes import MIB, Stopwatch, use_of

SERVICE_NAME = "bench"
MAJORITY = 2
SETTLE_SECONDS = 3.0
QUIET_WINDOW = 4.0
IDLE_SECONDS = 10.0
LAG = "holdfast_edit_to_majority_seconds"
WRITES, COPY_STEPS, LEASE_WRITES = "holdfast_writes_total", "holdfast_copy_steps_total", "holdfast_lease_writes_total"


@dataclass
class Found:
    """What rounds of one kind have measured."""

    figures: list[Figure]
    more: Json = field(default_factory=dict)


def hand_over(fleet: Fleet, how: signal.Signals, rounds: int, update: Update) -> list[float]:
    """Seconds from a signal to the leader until another operator says that it leads."""
    found = []
    for turn in range(rounds):
        update(f"{turn + 1} of {rounds}")
        name = fleet.leader()
        others = [each for region, each in fleet.operators.items() if region != name]
        begun = fleet.operators[name].end(how)
        now = wait_for("another leader", partial(_one_leads, others))
        found.append(now - begun)
        fleet.operators[name].join()
        fleet.operators[name].start()
        time.sleep(SETTLE_SECONDS)
    return found


def first_service(fleet: Fleet) -> None:
    """Apply the service that rounds edit, and wait until every region serves it and everything rests."""
    region = _not_leading(fleet)
    fleet.apply(region, SERVICE_NAME, 3)
    fleet.follower.wait("the service's plans", lambda: all_planned(fleet, [SERVICE_NAME]))
    wait_quiet(fleet)


def edits(fleet: Fleet, rounds: int, update: Update) -> Found:
    """One edit after the other in a region that does not lead."""
    region = _not_leading(fleet)
    before = wait_quiet(fleet)
    majority, plans = [], []
    for turn in range(rounds):
        update(f"{turn + 1} of {rounds}")
        held = fleet.follower.objects[region, SERVICE][SERVICE_NAME]
        number = int(held["status"]["replication"]["number"]) + 1
        begun = fleet.follower.mark()
        fleet.apply(region, SERVICE_NAME, 4 + turn)
        everywhere = fleet.follower.moments("new plans", PLAN, SERVICE_NAME, planned(number))
        here = fleet.follower.moments("a majority", SERVICE, SERVICE_NAME, held_by(number, MAJORITY), [region])
        majority.append(here[region] - begun)
        plans.append(max(everywhere.values()) - begun)
        time.sleep(0.5)
    after = wait_quiet(fleet)
    mean = mean_grown(before, after, LAG)
    by_kind = {kind: count / rounds for kind, count in grown(before, after, WRITES).items()}
    steps = {f"copy: {step}": count / rounds for step, count in grown(before, after, COPY_STEPS).items()}
    writes = by_kind | steps
    figures = [
        Figure("edit → status names a majority", majority, aim=1.0, digits=3),
        Figure(f"  mean of {LAG}", [] if mean is None else [mean], aim=1.0, digits=3),
        Figure("edit → plans of all regions", plans, digits=3),
        *(Figure(f"writes per edit, {kind}", [count], "", digits=1) for kind, count in writes.items()),
        Figure("writes per edit, all", [sum(writes.values())], "", digits=1),
    ]
    return Found(figures, {"region": region, "rounds": rounds, "writes_per_edit": writes})


def drains(fleet: Fleet, rounds: int, update: Update) -> Found:
    """Let the engines of one region hang, until every other region is told, and routes follow; then recover."""
    leader = fleet.leader()
    regions = sorted(fleet.servers, key=lambda each: each == leader)
    drained, weights = [], []
    for turn in range(rounds):
        update(f"{turn + 1} of {rounds}")
        hung = regions[turn % (len(regions) - 1)]
        begun = fleet.follower.mark()
        fleet.tell(hung, HANG)
        try:
            others = [each for each in regions if each != hung]
            is_drained = traffic_is(hung, "Drained")
            plans = fleet.follower.moments("draining", PLAN, SERVICE_NAME, is_drained)
            routes = fleet.follower.moments("weights", ROUTE, f"{SERVICE_NAME}-route", percent_is(hung, 0))
        finally:
            fleet.tell(hung, RECOVER)
        drained.append(max(plans[each] for each in others) - begun)
        weights.append(max(routes.values()) - plans[leader])
        fleet.follower.moments("recovery", PLAN, SERVICE_NAME, traffic_is(hung, "Serving"))
        fleet.follower.wait("recovery", partial(_serving, fleet, hung))
        time.sleep(SETTLE_SECONDS)
    return Found([
        Figure("hung engine → drained in all other plans", drained, aim=10.0),
        Figure("decision → weights in every region", weights, aim=1.0, digits=3),
    ])  # fmt: skip


def quiet(fleet: Fleet, seconds: float) -> Found:
    """Count writes while nothing happens: by the operators, and by the versions of all objects that they write."""
    before = wait_quiet(fleet)
    versions = fleet.follower.versions() | _region_versions(fleet)
    leases = _lease_versions(fleet)
    time.sleep(seconds)
    after = fleet.metrics()
    changed = [key for key, value in (fleet.follower.versions() | _region_versions(fleet)).items()
               if versions.get(key) != value]  # fmt: skip
    writes = grown(before, after, WRITES) | grown(before, after, COPY_STEPS)
    lease_writes = sum(grown(before, after, LEASE_WRITES).values())
    renewed = _lease_versions(fleet)
    heartbeats = sum(renewed[key] != leases.get(key) for key in renewed if key[1] == "holdfast-observer")
    what = f"in {seconds:g} s without edits"
    return Found(
        [
            Figure(f"writes {what}", [sum(writes.values())], "", aim=0, digits=0),
            Figure(f"  objects changed {what}", [float(len(changed))], "", aim=0, digits=0),
            Figure("  Lease writes per minute, all operators", [lease_writes * 60 / seconds], "", digits=0),
        ],
        {"writes": writes, "changed": sorted("/".join(key) for key in changed), "leases_with_heartbeats": heartbeats},
    )


def scale(fleet: Fleet, count: int, update: Update) -> Found:
    """Many services at once; then memory and processor time of each operator at rest."""
    region = _not_leading(fleet)
    services = [f"{SERVICE_NAME}-{number:04}" for number in range(count)]
    limit = 120.0 + 3.0 * count
    fleet.follower.mark()
    begun = time.monotonic()
    for number, name in enumerate(services):
        fleet.apply(region, name, 3)
        update(f"applied {number + 1} of {count}")
    applied = time.monotonic()
    update("waiting for plans")
    plans = fleet.follower.wait("plans of all services", lambda: all_planned(fleet, services), limit)
    update("waiting until all regions act on them")
    acted = fleet.follower.wait("acting on all plans", lambda: all_acted(fleet, services), limit)
    update("waiting until nothing is written")
    wait_quiet(fleet, limit)
    rested = time.monotonic() - QUIET_WINDOW
    update(f"watching operators for {IDLE_SECONDS:g} s")
    processes = {name: psutil.Process(each.pid) for name, each in fleet.operators.items()}
    watch = Stopwatch(processes.values())
    time.sleep(IDLE_SECONDS)
    cpu = watch.cpu()
    uses = {name: use_of(process, cpu) for name, process in processes.items()}
    title = f"{count} services"
    return Found(
        [
            Figure(f"{title}: applying them, one by one", [applied - begun], digits=1),
            Figure(f"{title} → plans in every region", [plans - begun], digits=1),
            Figure(f"{title} → every region acts on its plans", [acted - begun], digits=1),
            Figure(f"{title} → nothing more is written", [rested - begun], digits=1),
            Figure(f"{title}: memory of an operator", [use.rss / MIB for use in uses.values()], "MiB", digits=1),
            Figure(f"{title}: idle CPU of an operator", [use.cpu for use in uses.values()], "%", digits=1),
        ],
        {
            "services": count,
            "leader": fleet.leader(),
            "applied_in": region,
            "operators": {name: use.as_json() for name, use in uses.items()},
        },
    )


def wait_quiet(fleet: Fleet, seconds: float = 120.0) -> dict[str, dict[str, float]]:
    """Wait until no operator has written for some seconds; returns the metrics of then."""
    end = time.monotonic() + seconds
    before = fleet.metrics()
    while time.monotonic() < end:
        time.sleep(QUIET_WINDOW)
        after = fleet.metrics()
        if not grown(before, after, WRITES) and not grown(before, after, COPY_STEPS):
            return after
        before = after
    raise BenchError(f"The operators still write {seconds:g} s after the last edit: {grown(before, after, WRITES)}")


def all_planned(fleet: Fleet, names: list[str]) -> bool:
    """Whether every region has a plan for each service."""
    return all(name in fleet.follower.objects[region, PLAN] for region in fleet.servers for name in names)


def all_acted(fleet: Fleet, names: list[str]) -> bool:
    """Whether every region says that it acts on its plan, for each service."""

    def acts(region: str, name: str) -> bool:
        found = fleet.follower.objects[region, SERVICE].get(name, {})
        return any(
            each["type"] == "Planned" and each["reason"] == "PlanCurrent"
            for each in found.get("status", {}).get("conditions", ())
        )

    return all(acts(region, name) for region in fleet.servers for name in names)


def _one_leads(operators: Iterable[Operator]) -> bool:
    return any(each.leads for each in operators)


def _serving(fleet: Fleet, hung: str) -> bool:
    test = traffic_is(hung, "Serving")
    return all(test(fleet.follower.objects[region, PLAN][SERVICE_NAME]) for region in fleet.servers)


def _not_leading(fleet: Fleet) -> str:
    leader = fleet.leader()
    return next(each for each in fleet.servers if each != leader)


def _region_versions(fleet: Fleet) -> dict[tuple[str, str, str], str]:
    return {
        (region, "Region", each["metadata"]["name"]): each["metadata"]["resourceVersion"]
        for region, server in fleet.servers.items()
        for each in server.list("Region")
    }


def _lease_versions(fleet: Fleet) -> dict[tuple[str, str], str]:
    return {
        (region, each["metadata"]["name"]): each["metadata"]["resourceVersion"]
        for region, server in fleet.servers.items()
        for each in server.list("Lease", "holdfast-system")
    }
