"""What this region is to run and route for one service.

Each region plans for itself, from its own copy of the service.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.api.route import RegionTarget
from holdfast.domain.observation import Observation
from holdfast.domain.replicas import replicas_of
from holdfast.domain.revision import revision_of


@dataclass(frozen=True)
class RegionPlan:
    """The whole of what one region must do for one service."""

    revision: str
    image: str
    replicas: int
    """Engines to run here; 0 where the region does not serve."""
    targets: tuple[RegionTarget, ...]
    """Every region that runs engines of the service, in order of preference."""


def plan(seen: Observation) -> RegionPlan:
    """The plan for an accepted service."""
    spec = seen.service.spec
    image = spec.engine.image or seen.engine_images[spec.engine.type]
    wanted = {region.name: replicas_of(spec, region)[0] for region in spec.regions}
    targets = []
    for region in spec.regions:
        if not wanted[region.name]:
            continue
        gateway = seen.regions[region.name].spec.gateway
        targets.append(
            RegionTarget(name=region.name, address=gateway.address, peer_port=gateway.peer_port, weight=region.weight)
        )
    return RegionPlan(revision_of(spec, image), image, wanted.get(seen.region, 0), tuple(targets))
