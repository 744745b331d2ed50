"""Where a service's traffic goes: one step of the failover for all its regions at once.

Each region is Serving, Drained or Ramping; `TABLE` holds every allowed change. What must not happen has no row: a
drained region never serves fully again without ramping. Caps are checked for the service as a whole: too many drains,
or one that would take the last region with traffic, are refused and the traffic stays. Regions come back before others
go, as that makes room under the cap; and if an edit leaves only drained regions, the best of them comes back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from holdfast.api.conditions import Reason
from holdfast.api.llmservice import Failover
from holdfast.api.region import Verdict
from holdfast.api.regionplan import RegionTraffic, TrafficState
from holdfast.domain.guards import ALL_GUARDS, Guard
from holdfast.domain.health import Judgement


class Event(StrEnum):
    """What can happen to a region's traffic."""

    FAILED = "failed"
    ORDERED_OUT = "ordered out"
    ORDERED_BACK = "ordered back"
    RECOVERED = "recovered"
    STEP_HELD = "step held"
    NEEDED = "needed"


S = TrafficState
TABLE: Mapping[tuple[TrafficState, Event], TrafficState] = {
    (S.SERVING, Event.FAILED): S.DRAINED,
    (S.SERVING, Event.ORDERED_OUT): S.DRAINED,
    (S.DRAINED, Event.RECOVERED): S.RAMPING,
    (S.DRAINED, Event.ORDERED_BACK): S.RAMPING,
    (S.DRAINED, Event.NEEDED): S.RAMPING,
    (S.RAMPING, Event.FAILED): S.DRAINED,
    (S.RAMPING, Event.ORDERED_OUT): S.DRAINED,
    (S.RAMPING, Event.STEP_HELD): S.RAMPING,
}
"""(state, event) → state; the last step of a ramp makes a region Serving."""


@dataclass(frozen=True)
class Order:
    """What people asked of one region."""

    drain: bool = False
    override: bool = False
    """Whether more than the allowed fraction may be drained for it."""


@dataclass(frozen=True)
class Situation:
    """All that one step may see."""

    now: datetime
    failover: Failover
    before: Sequence[RegionTraffic]
    """The traffic of the last plan, in the spec's order; regions that it does not name are new."""
    health: Mapping[str, Judgement]
    orders: Mapping[str, Order]
    """By region; a region without one was never asked for anything."""


def step(seen: Situation, guards: frozenset[Guard] = ALL_GUARDS) -> tuple[RegionTraffic, ...]:
    """The traffic of the next plan; equal to the last one if nothing happens."""
    after = list(seen.before)
    leaving: dict[int, Event] = {}
    for place, traffic in enumerate(after):
        event = _event(seen, traffic, guards)
        if event is None:
            after[place] = _settled(traffic)
        elif TABLE.get((traffic.state, event)) is TrafficState.DRAINED:
            leaving[place] = event
        elif TABLE.get((traffic.state, event)) is TrafficState.RAMPING:
            after[place] = _ramp(seen, traffic, event)
    for place, event in leaving.items():
        after[place] = _drain(seen, after, place, event, guards)
    needed = _needed(seen, after) if Guard.LAST_REGION_STAYS in guards else None
    if needed is not None:
        after[needed] = _ramp(seen, after[needed], Event.NEEDED)
    return tuple(after)


def allowed_drained(regions: int, fraction: float) -> int:
    """How many of a service's regions may be drained at once; never all."""
    return max(0, min(int(regions * fraction + 1e-9), regions - 1))


def _event(seen: Situation, traffic: RegionTraffic, guards: frozenset[Guard]) -> Event | None:
    """The first that applies."""
    order = seen.orders.get(traffic.region, Order())
    judged = seen.health.get(traffic.region)
    verdict = judged.verdict if judged else Verdict.UNKNOWN
    failed = verdict is Verdict.UNHEALTHY or (Guard.UNKNOWN_STAYS not in guards and verdict is Verdict.UNKNOWN)
    if traffic.state is TrafficState.DRAINED:
        if order.drain or verdict is not Verdict.HEALTHY:
            return None
        return Event.ORDERED_BACK if traffic.reason == Reason.DRAIN_REQUESTED else Event.RECOVERED
    if order.drain:
        return Event.ORDERED_OUT
    if failed:
        return Event.FAILED
    held = traffic.since is None or seen.now - traffic.since >= seen.failover.failback.hold
    if traffic.state is TrafficState.RAMPING and held and verdict is Verdict.HEALTHY:
        return Event.STEP_HELD
    return None


def _settled(traffic: RegionTraffic) -> RegionTraffic:
    """Nothing happens: an earlier refusal is over once its cause is."""
    if traffic.reason not in (Reason.TRAFFIC_STAYS, Reason.DRAIN_REFUSED):
        return traffic
    if traffic.state is TrafficState.SERVING:
        return steady(traffic)
    message = f"{traffic.region} gets {traffic.percent} % of its share."
    return replace_traffic(traffic, traffic.state, traffic.percent, traffic.since, Reason.RAMPING_BACK, message)


def _needed(seen: Situation, regions: Sequence[RegionTraffic]) -> int | None:
    """The region that must come back because none has traffic: best one that nobody ordered out and that answers."""
    if any(each.weight * each.percent for each in regions):
        return None
    rank = {Verdict.HEALTHY: 0, Verdict.UNKNOWN: 1, Verdict.UNHEALTHY: 2}

    def cost(place: int) -> tuple[bool, int, int]:
        name = regions[place].region
        judged = seen.health.get(name)
        return seen.orders.get(name, Order()).drain, rank[judged.verdict if judged else Verdict.UNKNOWN], place

    return min((place for place, each in enumerate(regions) if each.weight), key=cost, default=None)


def steady(traffic: RegionTraffic) -> RegionTraffic:
    """A region that has all its traffic."""
    return replace_traffic(
        traffic, TrafficState.SERVING, 100, traffic.since, Reason.STEADY, f"{traffic.region} has its whole share."
    )


def _drain(
    seen: Situation, regions: Sequence[RegionTraffic], place: int, event: Event, guards: frozenset[Guard]
) -> RegionTraffic:
    traffic = regions[place]
    order = seen.orders.get(traffic.region, Order())
    drained = sum(each.state is TrafficState.DRAINED for each in regions)
    rest = [
        each
        for other, each in enumerate(regions)
        if other != place and each.state is not TrafficState.DRAINED and each.weight > 0
    ]
    most = allowed_drained(len(regions), seen.failover.max_drained_fraction)
    why = ""
    if not rest and Guard.LAST_REGION_STAYS in guards:
        why = "no other region has traffic"
    elif drained + 1 > most and not order.override and Guard.DRAIN_CAP in guards:
        why = f"{drained} of {len(regions)} regions are drained already and at most {most} may be"
    asked = event is Event.ORDERED_OUT
    judged = seen.health.get(traffic.region)
    cause = f"Somebody asked to drain {traffic.region}." if asked else (judged.message if judged else "It is not seen.")
    if why:
        reason, stays = Reason.DRAIN_REFUSED if asked else Reason.TRAFFIC_STAYS, f"Its traffic stays, as {why}."
        if traffic.reason == reason and traffic.message.endswith(stays):
            return traffic  # another number of observers that see the same is no news
        return replace_traffic(traffic, traffic.state, traffic.percent, traffic.since, reason, f"{cause} {stays}")
    if asked:
        reason = Reason.DRAIN_REQUESTED
    else:
        reason = Reason.RAMP_WORSENED if traffic.state is TrafficState.RAMPING else Reason.REGION_UNHEALTHY
    return replace_traffic(traffic, TrafficState.DRAINED, 0, seen.now, reason, cause)


def _ramp(seen: Situation, traffic: RegionTraffic, event: Event) -> RegionTraffic:
    steps = (*(each for each in seen.failover.failback.steps if each < 100), 100)
    percent = next((each for each in steps if each > traffic.percent), 100)
    if percent >= 100:
        return steady(traffic.model_copy(update={"since": seen.now}))
    why = "is needed, as no other region has traffic," if event is Event.NEEDED else "answers again"
    message = f"{traffic.region} {why} and gets {percent} % of its share."
    return replace_traffic(traffic, TrafficState.RAMPING, percent, seen.now, Reason.RAMPING_BACK, message)


def replace_traffic(
    traffic: RegionTraffic, state: TrafficState, percent: int, since: datetime | None, reason: Reason, message: str
) -> RegionTraffic:
    """The same region with other words; itself if nothing differs."""
    return traffic.model_copy(
        update={"state": state, "percent": percent, "since": since, "reason": str(reason), "message": message}
    )


def due(seen: Sequence[RegionTraffic], failover: Failover, now: datetime) -> timedelta | None:
    """When the next step of a ramp is due at the earliest; None while none can be.

    One that could have been taken already waits for the region's health, not for the time.
    """
    hold = failover.failback.hold
    ramping = [each.since for each in seen if each.state is TrafficState.RAMPING and each.since is not None]
    waits = [max(since + hold - now, timedelta(0)) for since in ramping if not hold or since + hold > now]
    return min(waits, default=None)
