"""What `kubectl holdfast status` and `plan` print, from a `Fleet`: as text, or as data for JSON and YAML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from holdfast.api import names
from holdfast.api.conditions import ConditionStatus, ConditionType
from holdfast.api.region import Verdict
from holdfast.api.regionplan import RegionTraffic, TrafficState
from holdfast.cli.columns import ago, engines, paragraph, table
from holdfast.cli.fleet import Fleet, LeaseSeen

GOOD = {
    ConditionType.ACCEPTED: ConditionStatus.TRUE,
    ConditionType.REPLICATED: ConditionStatus.TRUE,
    ConditionType.PLANNED: ConditionStatus.TRUE,
    ConditionType.AVAILABLE: ConditionStatus.TRUE,
    ConditionType.DEGRADED: ConditionStatus.FALSE,
    ConditionType.REACHABLE: ConditionStatus.TRUE,
    ConditionType.QUORUM: ConditionStatus.TRUE,
}
"""How conditions are that need no mention."""

MOST_OBSERVERS = 5
"""Beyond this many, verdicts are counted instead of given a column each."""


def status_text(fleet: Fleet, services: Iterable[str]) -> list[str]:
    """Everything about the regions and these services."""
    lines = paragraph(leader_sentence(fleet), hanging="        ")
    for sentence in fleet.unread.values():
        lines += paragraph(sentence)
    for name, since in fleet.silent().items():
        lines += paragraph(f"The operator of {name} was last heard {ago(since)} ago: what it saw is old.")
    lines += ["", *regions_text(fleet)]
    for service in services:
        lines += ["", *service_text(fleet, service)]
    return lines


def leader_sentence(fleet: Fleet) -> str:
    """Who leads, as far as can be seen."""
    lease = fleet.leader()
    held = {name: site.lease for name, site in fleet.sites.items() if site.lease}
    if lease is None:
        named = [f"{name} names {each.leader or 'nobody'} (epoch {each.epoch})" for name, each in held.items()]
        return f"Leader  none that a majority names; {'; '.join(named) or 'no Lease can be read'}."
    agree = [name for name, each in held.items() if (each.leader, each.epoch) == (lease.leader, lease.epoch)]
    sentence = f"Leader  {lease.leader}, epoch {lease.epoch}, by the Lease of {', '.join(agree)}"
    return f"{sentence}; {_overdue(fleet.now, lease)}" if _overdue(fleet.now, lease) else sentence


def _overdue(now: datetime, lease: LeaseSeen) -> str:
    if lease.renewed is None or (now - lease.renewed).total_seconds() <= lease.seconds:
        return ""
    return f"last renewed {ago(now - lease.renewed)} ago, so it may lead no more"


def regions_text(fleet: Fleet) -> list[str]:
    """One row for each region: what the observers see of its gateway."""
    observers = list(fleet.sites)
    header = ["REGION", "ROLE", "GATEWAY", "ORDER", *_seen_header(observers)]
    rows = []
    for name, region in fleet.regions.items():
        seen = _seen_cells(fleet.gateway_seen(name))
        rows.append([name, str(region.spec.role), region.spec.gateway.address, order_word(fleet, name), *seen])
    if not rows:
        return ["This cluster has no Region objects; `holdfast region join` makes them."]
    lines = table(header, rows)
    for observer, site in fleet.sites.items():
        for name, region in site.regions.items():
            for each in region.status.conditions:
                if _bad(each.type, each.status):
                    lines += paragraph(f"{observer} on {name}: {each.type}={each.status} {each.reason}: {each.message}")
    return lines


def order_word(fleet: Fleet, region: str) -> str:
    """What people asked of a region."""
    order = fleet.order(region)
    if not order.drain:
        return "-"
    return "drain, override" if order.override else "drain"


def service_text(fleet: Fleet, service: str) -> list[str]:
    """One service: a row for each region, then why what is not as usual is so."""
    lines = paragraph(" ".join((service, *_edit_words(fleet, service))), hanging="    ")
    decided = {each.region: each for each in fleet.traffic(service)}
    observers = list(fleet.sites)
    rows = []
    for region in dict.fromkeys((*fleet.served_by(service), *decided)):
        traffic = decided.get(region)
        told = [str(traffic.state), f"{traffic.percent}%", str(traffic.weight)] if traffic else ["no plan", "-", "-"]
        rows.append([region, *told, _ready(fleet, service, region), *_seen_cells(fleet.service_seen(service, region))])
    lines += table(["REGION", "STATE", "SHARE", "WEIGHT", "READY", *_seen_header(observers)], rows, indent="  ")
    for traffic in decided.values():
        lines += paragraph(decision_sentence(fleet.now, traffic), indent="  ")
    for name, site in fleet.sites.items():
        for each in site.services[service].status.conditions if service in site.services else ():
            if _bad(each.type, each.status):
                lines += paragraph(f"{name}: {each.type}={each.status} {each.reason}: {each.message}", indent="  ")
    return lines


def decision_sentence(now: datetime, traffic: RegionTraffic) -> str:
    """The last decision on a region's traffic, and why."""
    when = f" {ago(now - traffic.since)} ago" if traffic.since else ""
    share = f" at {traffic.percent}%" if traffic.state is TrafficState.RAMPING else ""
    return f"{traffic.region}: {traffic.state}{share}{when}, {traffic.reason}: {traffic.message}"


def _edit_words(fleet: Fleet, service: str) -> list[str]:
    latest = fleet.latest_edit(service)
    words = []
    if latest and latest.status.replication:
        known = latest.status.replication
        words.append(f"edit {known.number}, held by {', '.join(known.holders) or 'nobody that is seen'};")
    elif latest:
        words.append("not replicated;")
    plans = fleet.plans(service)
    if plans:
        plan = max(plans.values(), key=lambda each: each.spec.epoch).spec
        words.append(f"planned by {plan.leader}, epoch {plan.epoch}, edit {plan.number}")
        if plan.hold_rollout:
            words.append("(engines are not replaced while a region is missing)")
    else:
        words.append("no plan yet")
    return words


def _ready(fleet: Fleet, service: str, region: str) -> str:
    """`ready/planned` engines, and behind a plus the warm ones, as far as the region can be read."""
    site = fleet.sites.get(region)
    if site is None:
        return "?"
    status = site.services[service].status if service in site.services else None
    ready = status.ready_replicas if status else None
    plan = site.plans[service].spec if service in site.plans else None
    routed = f"{'?' if ready is None else ready}/{plan.replicas if plan else '?'}"
    if not (plan and plan.warm):
        return routed
    return f"{routed} + {'?' if ready is None or status is None else status.warm_replicas}/{plan.warm} warm"


def _seen_header(observers: list[str]) -> list[str]:
    if len(observers) > MOST_OBSERVERS:
        return ["SEEN"]
    return [f"SEEN BY {name}" if at == 0 else name for at, name in enumerate(observers)]


def _seen_cells(verdicts: Mapping[str, Verdict | None]) -> list[str]:
    if len(verdicts) > MOST_OBSERVERS:
        counts = Counter(str(each) for each in verdicts.values() if each)
        return [", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "-"]
    return [str(each) if each else "-" for each in verdicts.values()]


def _bad(kind: str, status: ConditionStatus) -> bool:
    good = {str(each): wanted for each, wanted in GOOD.items()}
    return kind in good and status != good[kind]


def plan_text(fleet: Fleet, services: Iterable[str]) -> list[str]:
    """The plans that are stored, one row for each region."""
    rows = []
    for service in services:
        for region, plan in fleet.plans(service).items():
            spec = plan.spec
            traffic = ", ".join(_traffic_words(each) for each in spec.traffic)
            decided = (
                f"{spec.epoch} {spec.leader}",
                str(spec.number),
                spec.revision,
                engines(spec.replicas, spec.warm),
            )
            rows.append([service, region, *decided, traffic + (" (no rollout now)" if spec.hold_rollout else "")])
    header = ["SERVICE", "REGION", "EPOCH LEADER", "EDIT", "REVISION", "ENGINES", "TRAFFIC"]
    lines = [line for sentence in fleet.unread.values() for line in paragraph(sentence)]
    return [*lines, *(table(header, rows, fold=True) if rows else ["No plans yet: no leader has planned anything."])]


def _traffic_words(traffic: RegionTraffic) -> str:
    word = "" if traffic.state is TrafficState.SERVING else f" {traffic.state}"
    return f"{traffic.region} {traffic.weight}×{traffic.percent}%{word}"


def status_data(fleet: Fleet, services: Iterable[str]) -> dict[str, Any]:
    """The same as `status_text`, for programs."""
    lease = fleet.leader()
    return {
        "readFrom": list(fleet.sites),
        "notRead": dict(fleet.unread),
        "silentSeconds": {name: int(since.total_seconds()) for name, since in fleet.silent().items()},
        "leader": {"region": lease.leader, "epoch": lease.epoch} if lease else None,
        "regions": [
            {
                "name": name,
                "role": str(region.spec.role),
                "gateway": region.spec.gateway.address,
                "drain": fleet.order(name).drain,
                "override": fleet.order(name).override,
                "seen": _verdict_data(fleet.gateway_seen(name)),
            }
            for name, region in fleet.regions.items()
        ],
        "services": [_service_data(fleet, service) for service in services],
    }


def _service_data(fleet: Fleet, service: str) -> dict[str, Any]:
    latest = fleet.latest_edit(service)
    decided = {each.region: each for each in fleet.traffic(service)}
    plans = fleet.plans(service)
    regions = [
        {
            "name": region,
            "traffic": decided[region].wire() if region in decided else None,
            "plan": _plan_data(plans[region].spec.wire()) if region in plans else None,
            "engines": _ready(fleet, service, region),
            "seen": _verdict_data(fleet.service_seen(service, region)),
        }
        for region in dict.fromkeys((*fleet.served_by(service), *decided))
    ]
    replication = latest.status.replication if latest else None
    return {"name": service, "edit": replication.wire() if replication else None, "regions": regions}


def _plan_data(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in spec.items() if key not in ("traffic", "service", "region")}


def plan_data(fleet: Fleet, services: Iterable[str]) -> list[dict[str, Any]]:
    """Every stored plan with the region that stores it."""
    return [
        {
            "apiVersion": names.API_VERSION,
            "kind": "RegionPlan",
            "metadata": {"name": plan.name, "namespace": plan.namespace, "generation": plan.generation},
            "storedIn": region,
            "spec": plan.spec.wire(),
        }
        for service in services
        for region, plan in fleet.plans(service).items()
    ]


def _verdict_data(verdicts: Mapping[str, Verdict | None]) -> dict[str, str | None]:
    return {name: str(each) if each else None for name, each in verdicts.items()}
