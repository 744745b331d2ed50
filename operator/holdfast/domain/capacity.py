"""How many engines each region runs, when some of them have lost their traffic.

The engines of a drained region stay (they are needed again, and what they run must finish); the others are asked for
what it carried, each up to its maximum, the emptiest first and of equal ones the most preferred.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.api.llmservice import LLMServiceSpec
from holdfast.api.regionplan import RegionTraffic, TrafficState
from holdfast.domain.replicas import replicas_of


def replicas(spec: LLMServiceSpec, traffic: Sequence[RegionTraffic]) -> dict[str, int]:
    """Engines to run, by region. What is missing beyond every maximum stays missing."""
    limits = {region.name: replicas_of(spec, region) for region in spec.regions}
    wanted = {name: least for name, (least, _) in limits.items()}
    away = _away(spec, traffic)
    missing = sum(away.values())
    able = [name for name in wanted if name not in away]
    while missing:
        room = [name for name in able if wanted[name] < limits[name][1]]
        if not room:
            break
        emptiest = min(room, key=lambda name: wanted[name] / limits[name][1])
        wanted[emptiest] += 1
        missing -= 1
    return wanted


def missing_engines(spec: LLMServiceSpec, traffic: Sequence[RegionTraffic]) -> int:
    """How many engines no other region may run in place of those whose traffic is away."""
    found = replicas(spec, traffic)
    gained = sum(found[region.name] - replicas_of(spec, region)[0] for region in spec.regions)
    return sum(_away(spec, traffic).values()) - gained


def _away(spec: LLMServiceSpec, traffic: Sequence[RegionTraffic]) -> dict[str, int]:
    """Engines, rounded up, whose share of the traffic is elsewhere, by region that has not all of its own."""
    least = {region.name: replicas_of(spec, region)[0] for region in spec.regions}
    return {
        each.region: -(-least[each.region] * (100 - each.percent) // 100)
        for each in traffic
        if each.state is not TrafficState.SERVING and each.region in least
    }
