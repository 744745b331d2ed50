"""What the commands know of all regions at one moment, and the questions that they ask of it; nothing is read here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from holdfast.api.conditions import Reason
from holdfast.api.llmservice import LLMServiceSpec, LLMServiceStatus
from holdfast.api.region import Region, RegionRole, Verdict
from holdfast.api.regionplan import RegionPlan, RegionTraffic
from holdfast.domain import failover, orders
from holdfast.domain.failover import Order

SILENT = timedelta(seconds=60)
"""An operator that was last heard longer ago does not run; the clocks that are compared may differ by some seconds."""


@dataclass(frozen=True)
class LeaseSeen:
    """The leader's Lease in one region."""

    leader: str
    """Region of the holder; empty if nobody holds it."""
    epoch: int
    renewed: datetime | None
    """By the holder's clock."""
    seconds: float
    """How long it is good after that."""


@dataclass(frozen=True)
class ServiceSeen:
    """One region's copy of a service."""

    spec: LLMServiceSpec | None
    """None where it cannot be read by this version."""
    status: LLMServiceStatus


@dataclass(frozen=True)
class Site:
    """What one region's API server holds; services and plans by `namespace/name`."""

    regions: Mapping[str, Region]
    services: Mapping[str, ServiceSeen]
    plans: Mapping[str, RegionPlan]
    lease: LeaseSeen | None = None
    heard: datetime | None = None
    """When its operator last showed that it lives, by that operator's clock; None where nothing is known."""


@dataclass(frozen=True)
class Fleet:
    """All regions."""

    now: datetime
    here: str
    """The region whose cluster the user's kubeconfig names."""
    sites: Mapping[str, Site]
    """Every region whose API server could be read."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Region → why its API server could not be read, in one sentence."""

    @property
    def own(self) -> Site:
        """The cluster that the kubeconfig names."""
        return self.sites[self.here]

    @property
    def regions(self) -> Mapping[str, Region]:
        """Every `Region` as the own cluster knows it."""
        return self.own.regions

    def services(self, namespace: str | None = None) -> list[str]:
        """Every service that any region holds, by name; of one namespace if given."""
        names = {name for site in self.sites.values() for name in (*site.services, *site.plans)}
        return sorted(name for name in names if namespace is None or name.partition("/")[0] == namespace)

    def spec(self, service: str) -> LLMServiceSpec | None:
        """The spec of the latest edit that can be read."""
        copies = [(number(each), each.spec) for each in self._copies(service) if each.spec]
        return max(copies, key=lambda pair: pair[0])[1] if copies else None

    def plans(self, service: str) -> dict[str, RegionPlan]:
        """The plan that is stored in each region."""
        return {name: site.plans[service] for name, site in self.sites.items() if service in site.plans}

    def traffic(self, service: str) -> tuple[RegionTraffic, ...]:
        """What was decided last; empty while nothing was."""
        plans = self.plans(service).values()
        return max(plans, key=_decided).spec.traffic if plans else ()

    def served_by(self, service: str) -> list[str]:
        """The regions of a service, in its order of preference."""
        spec = self.spec(service)
        return [each.name for each in spec.regions] if spec else [each.region for each in self.traffic(service)]

    def order(self, region: str) -> Order:
        """What people asked of a region, in any cluster that can be read."""
        return orders.order(self.annotations(region).values())

    def annotations(self, region: str) -> dict[str, Mapping[str, str]]:
        """The annotations of a region's object, by the region whose cluster holds it."""
        return {name: site.regions[region].annotations for name, site in self.sites.items() if region in site.regions}

    def leader(self) -> LeaseSeen | None:
        """The Lease that a majority of all regions agrees on; the own one where no other can be read."""
        seen = [site.lease for site in self.sites.values() if site.lease and site.lease.leader]
        quorum = 1 if len(self.sites) == 1 else len(self.regions) // 2 + 1
        for lease in seen:
            same = [each for each in seen if (each.leader, each.epoch) == (lease.leader, lease.epoch)]
            if len(same) >= quorum:
                return max(same, key=lambda each: each.renewed.timestamp() if each.renewed else 0.0)
        return None

    def silent(self) -> dict[str, timedelta]:
        """Regions whose operators have not shown for a while that they live, and for how long."""
        since = {name: self.now - site.heard for name, site in self.sites.items() if site.heard}
        return {name: each for name, each in since.items() if each > SILENT}

    def gateway_seen(self, region: str) -> dict[str, Verdict | None]:
        """What each observer sees of a region's gateway."""
        return {
            name: site.regions[region].status.verdict if region in site.regions else None
            for name, site in self.sites.items()
        }

    def service_seen(self, service: str, region: str) -> dict[str, Verdict | None]:
        """What each observer sees of a service in a region."""
        return {name: _verdict(site, service, region) for name, site in self.sites.items()}

    def latest_edit(self, service: str) -> ServiceSeen | None:
        """The copy whose region knows of the latest edit."""
        return max(self._copies(service), key=number, default=None)

    def _copies(self, service: str) -> Iterable[ServiceSeen]:
        return [site.services[service] for site in self.sites.values() if service in site.services]


def number(copy: ServiceSeen) -> int:
    """Number of the edit that a copy holds; 0 where its region stands alone."""
    return copy.status.replication.number if copy.status.replication else 0


def _decided(plan: RegionPlan) -> tuple[int, float]:
    """Orders plans by when they were decided, as a new leader does."""
    changes = [each.since.timestamp() for each in plan.spec.traffic if each.since]
    return plan.spec.epoch, max(changes, default=0.0)


def _verdict(site: Site, service: str, region: str) -> Verdict | None:
    if region not in site.regions:
        return None
    return next((each.verdict for each in site.regions[region].status.services if each.service == service), None)


def refusals(fleet: Fleet, region: str, override: bool) -> dict[str, str]:
    """Services for which the leader would refuse to drain a region, with its sentence."""
    refused: dict[str, str] = {}
    for service in fleet.services():
        spec = fleet.spec(service)
        if spec is None or region not in (each.name for each in spec.regions):
            continue
        decided = {each.region: each for each in fleet.traffic(service)}
        before = tuple(
            decided.get(each.name)
            or failover.steady(RegionTraffic(region=each.name, weight=each.weight, reason="", message=""))
            for each in spec.regions
        )
        order = {region: Order(drain=True, override=override)}
        after = failover.step(failover.Situation(fleet.now, spec.failover, before, {}, order))
        for each in after:
            if each.region == region and each.reason == Reason.DRAIN_REFUSED:
                refused[service] = each.message
    return refused


def is_witness(fleet: Fleet, region: str) -> bool:
    """Whether a region runs nothing."""
    return fleet.regions[region].spec.role is RegionRole.WITNESS
