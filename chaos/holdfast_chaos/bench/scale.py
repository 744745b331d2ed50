"""Many services at once on a running fleet: how long until every region has its plans, and what operators cost then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from holdfast_testbed.progress import Update

from .benchmark import BenchError, Json
from .figures import Figure, grown
from .fleet import Fleet
from .follow import PLAN, SERVICE
from .processes import MIB, Stopwatch, use_of

SERVICE_NAME = "bench"
QUIET_WINDOW = 4.0
IDLE_SECONDS = 10.0
WRITES, COPY_STEPS = "holdfast_writes_total", "holdfast_copy_steps_total"
RECONCILES, ELECTIONS = "holdfast_reconciles_total", "holdfast_elections_won_total"
PATIENCE_SECONDS, PATIENCE_PER_SERVICE = 60.0, 1.5
"""How long to wait in all, from the first service applied; what has not happened then is shown as a dash."""


@dataclass
class Found:
    """What rounds of one kind have measured."""

    figures: list[Figure]
    more: Json = field(default_factory=dict)


def scale(fleet: Fleet, count: int, update: Update) -> Found:
    """Many services at once; then memory and processor time of each operator."""
    region = not_leading(fleet)
    services = [f"{SERVICE_NAME}-{number:04}" for number in range(count)]
    before = fleet.metrics()
    fleet.follower.mark()
    missed: list[str] = []
    begun = time.monotonic()
    end = begun + PATIENCE_SECONDS + PATIENCE_PER_SERVICE * count
    for number, name in enumerate(services):
        if time.monotonic() > end:
            missed.append(f"Only {number} could be applied within {end - begun:g} s.")
            break
        fleet.apply(region, name, 3)
        update(f"applied {number + 1} of {count}")
    applied = time.monotonic() - begun

    def until(what: str, check: Callable[[float], float]) -> list[float]:
        update(f"waiting for {what}")
        try:
            return [check(max(0.0, end - time.monotonic())) - begun]
        except BenchError as error:
            missed.append(str(error))
            return []

    follower = fleet.follower
    planned = until("plans", lambda left: follower.wait("plans", lambda: all_planned(fleet, services), left))
    acted = until("acting on plans", lambda left: follower.wait("acting", lambda: all_acted(fleet, services), left))
    rested = until("the last write", lambda left: _last_write(fleet, left))
    update(f"watching operators for {IDLE_SECONDS:g} s")
    processes = {name: psutil.Process(each.pid) for name, each in fleet.operators.items()}
    watch = Stopwatch(processes.values())
    time.sleep(IDLE_SECONDS)
    cpu = watch.cpu()
    uses = {name: use_of(process, cpu) for name, process in processes.items()}
    after = fleet.metrics()
    writes = {name: value / count for name, value in grown(before, after, WRITES).items()}
    passes = [sum(grown({each: before[each]}, {each: after[each]}, RECONCILES).values()) / count for each in after]
    won = sum(grown(before, after, ELECTIONS).values())
    idle = "idle CPU" if rested else "CPU, not idle yet,"
    return Found(
        [
            Figure("applying them, one by one", [applied], digits=1),
            Figure("first apply → plans in every region", planned, digits=1),
            Figure("first apply → every region acts on its plans", acted, digits=1),
            Figure("first apply → last write", rested, digits=1),
            Figure("writes per service, all operators", [sum(writes.values())], "", digits=1),
            Figure("decisions per service, by operator", passes, "", digits=1),
            Figure("leaderships won meanwhile", [won], "", aim=0, digits=0),
            Figure("memory, by operator", [use.rss / MIB for use in uses.values()], "MiB", aim=200, digits=1),
            Figure(f"{idle} by operator", [use.cpu for use in uses.values()], "%", aim=5, digits=1),
        ],
        {
            "services": count,
            "leader": next((name for name, each in fleet.operators.items() if each.leads), None),
            "applied_in": region,
            "missed": missed,
            "plans": {each: len(fleet.follower.objects[each, PLAN]) for each in fleet.servers},
            "writes_per_service": writes,
            "operators": {name: use.as_json() for name, use in uses.items()},
        },
    )


def _last_write(fleet: Fleet, seconds: float) -> float:
    wait_quiet(fleet, seconds)
    return time.monotonic() - QUIET_WINDOW


def wait_quiet(fleet: Fleet, seconds: float = 120.0) -> dict[str, dict[str, float]]:
    """Wait until no operator has written for some seconds; returns the metrics of then."""
    end = time.monotonic() + seconds
    before = after = fleet.metrics()
    while time.monotonic() < end:
        time.sleep(QUIET_WINDOW)
        after = fleet.metrics()
        if not grown(before, after, WRITES) and not grown(before, after, COPY_STEPS):
            return after
        before = after
    raise BenchError(f"The operators still write {seconds:g} s after the last edit.")


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


def not_leading(fleet: Fleet) -> str:
    """A region whose operator does not lead."""
    leader = fleet.leader()
    return next(each for each in fleet.servers if each != leader)
