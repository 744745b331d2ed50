"""Orders of people to the leader: which annotations give one, and how far it has come. Nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from holdfast.api.conditions import Reason
from holdfast.api.names import DRAIN_ANNOTATION, OVERRIDE_ANNOTATION, UNDRAIN_ANNOTATION
from holdfast.api.regionplan import RegionTraffic, TrafficState
from holdfast.cli.fleet import Fleet
from holdfast.domain.orders import ALWAYS, NEVER, moment

TICK = timedelta(microseconds=1)

REFUSAL_SECONDS = 15.0
"""A refusal that stood before the order counts as the answer to it after this time."""


def annotate(fleet: Fleet, region: str, drain: bool, override: bool) -> dict[str, str | None]:
    """What to set on the `Region` object (None removes), so that this order is the latest of all that can be seen.

    The moment is that of the user's clock, or just after the latest one that is written there already.
    """
    written = [
        found
        for each in fleet.annotations(region).values()
        for key in (DRAIN_ANNOTATION, UNDRAIN_ANNOTATION)
        if NEVER < (found := moment(each.get(key))) < ALWAYS
    ]
    at = max([fleet.now, *(each + TICK for each in written)])
    own = fleet.own.regions[region].annotations
    if drain:
        return {DRAIN_ANNOTATION: stamp(at), OVERRIDE_ANNOTATION: "true" if override else None}
    forever = moment(own.get(DRAIN_ANNOTATION)) == ALWAYS
    gone: dict[str, str | None] = {DRAIN_ANNOTATION: None} if forever else {}
    return {**gone, UNDRAIN_ANNOTATION: stamp(at), OVERRIDE_ANNOTATION: None}


def stamp(at: datetime) -> str:
    """RFC 3339 with microseconds, UTC."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def in_the_way(fleet: Fleet, region: str, drain: bool) -> list[str]:
    """Clusters whose own annotations go against this order whatever its moment, one sentence each."""
    others = {name: each for name, each in fleet.annotations(region).items() if name != fleet.here}
    sentences = []
    for name, each in others.items():
        if not drain and moment(each.get(DRAIN_ANNOTATION)) == ALWAYS:
            sentences.append(f'{name} has {DRAIN_ANNOTATION}: "true" on Region {region}: remove it there as well.')
        if each.get(OVERRIDE_ANNOTATION) == "true":
            sentences.append(f'{name} has {OVERRIDE_ANNOTATION}: "true" on Region {region}: it still holds.')
    return sentences


class Outcome(StrEnum):
    """How far an order has come for one service."""

    DONE = "done"
    REFUSED = "refused"
    WAITING = "waiting"


@dataclass(frozen=True)
class Progress:
    """How far an order has come for one service, and the sentence that says so."""

    service: str
    outcome: Outcome
    message: str


def progress(
    fleet: Fleet, region: str, drain: bool, generations: Mapping[tuple[str, str], int], waited: float
) -> list[Progress]:
    """Every service of the region; `generations` are the plans' when the order was given, `waited` is seconds."""
    found = []
    for service in fleet.services():
        if region in fleet.served_by(service):
            found.append(_progress(fleet, service, region, drain, generations, waited))
    return found


def plan_generations(fleet: Fleet) -> dict[tuple[str, str], int]:
    """(service, region) → generation of the plan stored there."""
    return {
        (service, region): plan.generation
        for service in fleet.services()
        for region, plan in fleet.plans(service).items()
    }


def _progress(
    fleet: Fleet, service: str, region: str, drain: bool, before: Mapping[tuple[str, str], int], waited: float
) -> Progress:
    stored = {
        name: next((each for each in plan.spec.traffic if each.region == region), None)
        for name, plan in fleet.plans(service).items()
    }
    if not stored:
        return Progress(service, Outcome.WAITING, f"{service}: no leader has planned it yet.")
    latest = next((each for each in fleet.traffic(service) if each.region == region), None)
    if latest is None:
        return Progress(service, Outcome.WAITING, f"{service}: the plan does not name {region} yet.")
    words = f"{service}: {region} is {_words(latest)}"
    wanted = TrafficState.DRAINED if drain else TrafficState.SERVING
    behind = [name for name, each in stored.items() if each is None or each.state is not wanted]
    if not behind:
        return Progress(service, Outcome.DONE, words)
    if drain and latest.reason == Reason.DRAIN_REFUSED:
        plans = fleet.plans(service)
        new = any(plans[name].generation != before.get((service, name)) for name in behind)
        if new or waited >= REFUSAL_SECONDS:
            return Progress(service, Outcome.REFUSED, f"{service}: {latest.reason}: {latest.message}")
    if latest.state is wanted:
        words += f", but the plan stored in {', '.join(behind)} does not say so yet"
    return Progress(service, Outcome.WAITING, words)


def _words(traffic: RegionTraffic) -> str:
    share = f" with {traffic.percent}%" if traffic.state is TrafficState.RAMPING else ""
    return f"{traffic.state}{share} ({traffic.reason})"


def patience(fleet: Fleet, region: str, drain: bool) -> timedelta:
    """How long to wait at most: a change of leaders, and for traffic that comes back every step of the longest ramp."""
    least = timedelta(minutes=2)
    if drain:
        return least
    specs = [spec for name in fleet.services() if (spec := fleet.spec(name)) and region in fleet.served_by(name)]
    ramps = [
        spec.failover.healthy_after + (len(spec.failover.failback.steps) + 1) * spec.failover.failback.hold
        for spec in specs
    ]
    return least + 2 * max(ramps, default=timedelta(0))
