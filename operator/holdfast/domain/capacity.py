"""How many engines each region runs, when some of them have lost their traffic.

The engines of a drained region stay (they are needed again, and what they run must finish); the others are asked for
what it carried, each up to its maximum, the most preferred first.
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
    away = {each.region: 100 - each.percent for each in traffic if each.state is not TrafficState.SERVING}
    missing = sum(-(-wanted[name] * part // 100) for name, part in away.items() if name in wanted)
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
    """How many engines of the drained regions no other region may run in their place."""
    away = {each.region for each in traffic if each.state is TrafficState.DRAINED}
    found = replicas(spec, traffic)
    least = {region.name: replicas_of(spec, region)[0] for region in spec.regions}
    lost = sum(count for name, count in least.items() if name in away)
    gained = sum(found[name] - count for name, count in least.items() if name not in away)
    return max(0, lost - gained)
