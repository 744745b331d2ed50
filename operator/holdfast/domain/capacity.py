"""How many engines each region runs, when some of them have lost their traffic.

The engines of a drained region stay, warm ones too (they are needed again, and what they run must finish); the others
are asked for what it carried, each up to its maximum. Warm engines are promoted first, as they are there at once: in
the region with most of them left. Then engines are started, in the emptiest region. Of equal ones the most preferred.

Nothing is remembered: what is wanted follows from the spec and the traffic, so warm engines are restored as traffic
comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.api.llmservice import LLMServiceSpec
from holdfast.api.regionplan import RegionTraffic, TrafficState
from holdfast.domain.replicas import replicas_of, warm_of


@dataclass(frozen=True)
class Engines:
    """The engines of one region."""

    replicas: int = 0
    """Those that take requests; never more than the region's maximum."""
    warm: int = 0
    """Those beyond them that are initialised and not routed."""


def engines(spec: LLMServiceSpec, traffic: Sequence[RegionTraffic]) -> dict[str, Engines]:
    """Engines to run, by region. What is missing beyond every maximum stays missing."""
    limits = {region.name: replicas_of(spec, region) for region in spec.regions}
    wanted = {name: least for name, (least, _) in limits.items()}
    warm = {region.name: warm_of(spec, region) for region in spec.regions}
    away = _away(spec, traffic)
    missing = sum(away.values())
    able = [name for name in wanted if name not in away]
    while missing:
        room = [name for name in able if wanted[name] < limits[name][1]]
        if not room:
            break
        chosen = max(room, key=lambda name: warm[name])
        if warm[chosen]:
            warm[chosen] -= 1
        else:
            chosen = min(room, key=lambda name: wanted[name] / limits[name][1])
        wanted[chosen] += 1
        missing -= 1
    return {name: Engines(wanted[name], warm[name]) for name in wanted}


def missing_engines(spec: LLMServiceSpec, traffic: Sequence[RegionTraffic]) -> int:
    """How many engines no other region may run in place of those whose traffic is away."""
    found = engines(spec, traffic)
    gained = sum(found[region.name].replicas - replicas_of(spec, region)[0] for region in spec.regions)
    return sum(_away(spec, traffic).values()) - gained


def _away(spec: LLMServiceSpec, traffic: Sequence[RegionTraffic]) -> dict[str, int]:
    """Engines, rounded up, whose share of the traffic is elsewhere, by region that has not all of its own."""
    least = {region.name: replicas_of(spec, region)[0] for region in spec.regions}
    return {
        each.region: -(-least[each.region] * (100 - each.percent) // 100)
        for each in traffic
        if each.state is not TrafficState.SERVING and each.region in least
    }
