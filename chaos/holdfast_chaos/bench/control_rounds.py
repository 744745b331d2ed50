"""The single measurements of the control plane; each takes a running fleet and leaves it well."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from functools import partial

from holdfast_testbed.progress import Update

from .figures import Figure, grown, held_by, mean_grown, planned, traffic_is
from .fleet import Fleet, Operator, wait_for
from .follow import PLAN, ROUTE, SERVICE, percent_is
from .gateway_stand_in import HANG, RECOVER
from .scale import COPY_STEPS, SERVICE_NAME, WRITES, Found, all_planned, not_leading, wait_quiet

MAJORITY = 2
SETTLE_SECONDS = 3.0
LAG = "holdfast_edit_to_majority_seconds"
LEASE_WRITES = "holdfast_lease_writes_total"


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
    region = not_leading(fleet)
    fleet.apply(region, SERVICE_NAME, 3)
    fleet.follower.wait("the service's plans", lambda: all_planned(fleet, [SERVICE_NAME]))
    wait_quiet(fleet)


def edits(fleet: Fleet, rounds: int, update: Update) -> Found:
    """One edit after the other in a region that does not lead."""
    region = not_leading(fleet)
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


def _one_leads(operators: Iterable[Operator]) -> bool:
    return any(each.leads for each in operators)


def _serving(fleet: Fleet, hung: str) -> bool:
    test = traffic_is(hung, "Serving")
    return all(test(fleet.follower.objects[region, PLAN][SERVICE_NAME]) for region in fleet.servers)


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
