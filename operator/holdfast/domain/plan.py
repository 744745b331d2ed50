"""What this region is to run and route for one service: as the leader planned it, or alone from its own copy."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.api.region import RegionRole
from holdfast.api.regionplan import RegionPlanSpec, RegionTraffic
from holdfast.api.route import RegionTarget, RevisionShare
from holdfast.domain.observation import Observation
from holdfast.domain.replicas import replicas_of, warm_of
from holdfast.domain.revision import revision_of


@dataclass(frozen=True)
class Work:
    """The whole of what one region must do for one service."""

    revision: str
    image: str
    replicas: int
    """Engines to run here that take requests; 0 where the region does not serve."""
    targets: tuple[RegionTarget, ...]
    """Every region that runs engines of the service, in order of preference."""
    hold_rollout: bool = False
    """Whether engines must not be replaced now."""
    traffic: tuple[RegionTraffic, ...] = ()
    """What the leader decided on every region's traffic; empty where the region plans for itself."""
    warm: int = 0
    """Engines to run here beyond the replicas, initialised and not routed."""
    revisions: tuple[RevisionShare, ...] = ()
    """How engines of several revisions share the requests here; empty: all alike."""

    @property
    def engines(self) -> int:
        """All engines to run here."""
        return self.replicas + self.warm


def plan_alone(seen: Observation) -> Work:
    """The plan for an accepted service of a region without peers: by its own copy, all regions equal."""
    spec = seen.service.spec
    image = spec.engine.image or seen.engine_images[spec.engine.type]
    wanted = {region.name: replicas_of(spec, region)[0] for region in spec.regions}
    targets = tuple(_target(seen, region.name, region.weight) for region in spec.regions if wanted[region.name])
    warm = sum(warm_of(spec, region) for region in spec.regions if region.name == seen.region)
    return Work(revision_of(spec, image), image, wanted.get(seen.region, 0), targets, warm=warm)


def carry_out(seen: Observation, plan: RegionPlanSpec) -> Work:
    """The leader's plan, with the gateways' addresses as this region knows them."""
    runs = {region.name: replicas_of(seen.service.spec, region)[0] for region in seen.service.spec.regions}
    targets = tuple(
        _target(seen, each.region, each.weight, each.percent)
        for each in plan.traffic
        if runs.get(each.region) and each.region in seen.regions
    )
    split = next((each.revisions for each in plan.traffic if each.region == seen.region), ())
    return Work(plan.revision, plan.image, plan.replicas, targets, plan.hold_rollout, plan.traffic, plan.warm, split)


def is_witness(seen: Observation) -> bool:
    """Whether this region takes part in decisions only."""
    own = seen.regions.get(seen.region)
    return own is not None and own.spec.role is RegionRole.WITNESS


def _target(seen: Observation, region: str, weight: int, percent: int = 100) -> RegionTarget:
    gateway = seen.regions[region].spec.gateway
    return RegionTarget(
        name=region, address=gateway.address, peer_port=gateway.peer_port, weight=weight, percent=percent
    )
