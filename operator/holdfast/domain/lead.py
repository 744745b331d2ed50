"""The leader's whole decision on one service: from what it sees of all regions to the plan of each.

The traffic of the last plans is the memory: a leader that has just begun reads it there and goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from holdfast.api.conditions import Reason
from holdfast.api.llmservice import LLMServiceSpec
from holdfast.api.region import Region, RegionRole
from holdfast.api.regionplan import RegionPlan, RegionPlanSpec, RegionTraffic, TrafficState
from holdfast.domain import capacity, failover
from holdfast.domain.copies import Version
from holdfast.domain.failover import Order, Situation
from holdfast.domain.guards import ALL_GUARDS, Guard
from holdfast.domain.health import Judgement
from holdfast.domain.revision import revision_of


@dataclass(frozen=True)
class Service:
    """One service as the leader sees it."""

    now: datetime
    region: str
    """The leader's own region."""
    epoch: int
    name: str
    version: Version
    """The edit that a majority holds."""
    spec: LLMServiceSpec
    regions: Mapping[str, Region]
    """Every `Region` that the leader knows, by name."""
    engine_images: Mapping[str, str]
    """Default image by engine type."""
    plans: Mapping[str, RegionPlan] = field(default_factory=dict)
    """The last plan of each region that could be read."""
    health: Mapping[str, Judgement] = field(default_factory=dict)
    orders: Mapping[str, Order] = field(default_factory=dict)


@dataclass(frozen=True)
class Leading:
    """What the leader decides for a service."""

    plans: Mapping[str, RegionPlanSpec]
    """The whole plan of every serving region."""
    changed: tuple[RegionTraffic, ...]
    """Regions whose traffic this decision changes, with reason and sentence."""
    again: timedelta | None
    """When to decide anew at the latest although nothing happens; None: never."""


def lead(seen: Service, guards: frozenset[Guard] = ALL_GUARDS) -> Leading:
    """The plans of an accepted service for every serving region, those that do not run it included."""
    before = last_traffic(seen)
    situation = Situation(seen.now, seen.spec.failover, before, seen.health, seen.orders)
    traffic = failover.step(situation, guards)
    wanted = capacity.engines(seen.spec, traffic)
    image = seen.spec.engine.image or seen.engine_images[seen.spec.engine.type]
    none = capacity.Engines()
    hold = any(each.state is not TrafficState.SERVING for each in traffic)
    plans = {
        name: RegionPlanSpec(
            service=seen.name,
            region=name,
            epoch=seen.epoch,
            leader=seen.region,
            number=seen.version.number,
            digest=seen.version.digest,
            revision=revision_of(seen.spec, image),
            image=image,
            replicas=wanted.get(name, none).replicas,
            warm=wanted.get(name, none).warm,
            traffic=traffic,
            hold_rollout=hold,
        )
        for name, region in seen.regions.items()
        if region.spec.role is RegionRole.SERVING
    }
    old = {each.region: (each.state, each.percent, each.reason) for each in before}
    changed = tuple(each for each in traffic if old[each.region] != (each.state, each.percent, each.reason))
    return Leading(plans, changed, failover.due(traffic, seen.spec.failover, seen.now))


def last_traffic(seen: Service) -> tuple[RegionTraffic, ...]:
    """The traffic that was decided last, fitted to the spec: its regions, order and weights.

    The plan of the largest epoch counts, and among those of one leader the one with the latest change. A region that
    is new to the service has all its share at once: nothing is known against it.
    """
    known = {each.region: each for each in _latest(seen.plans)}
    return tuple(
        known[region.name].model_copy(update={"weight": region.weight})
        if region.name in known
        else failover.steady(RegionTraffic(region=region.name, weight=region.weight, reason=Reason.STEADY, message=""))
        for region in seen.spec.regions
    )


def _latest(plans: Mapping[str, RegionPlan]) -> Sequence[RegionTraffic]:
    def order(plan: RegionPlan) -> tuple[int, float]:
        changes = [each.since.timestamp() for each in plan.spec.traffic if each.since]
        return plan.spec.epoch, max(changes, default=0.0)

    return max(plans.values(), key=order).spec.traffic if plans else ()
