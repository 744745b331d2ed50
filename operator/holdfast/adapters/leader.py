"""Leads: gathers what is known of a service in all regions, and writes the plans that the domain decides."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from holdfast.adapters import metrics
from holdfast.adapters.announce import announce
from holdfast.adapters.election import Election
from holdfast.adapters.heartbeat import Heartbeats
from holdfast.adapters.observe import SpecUnreadable, Watched, Written, gather, now, read_plan, read_regions
from holdfast.adapters.regionstatus import read_status
from holdfast.adapters.sites import Site, Sites
from holdfast.api import names
from holdfast.api.conditions import Reason
from holdfast.api.region import ServiceSeen
from holdfast.api.regionplan import RegionPlan, RegionPlanSpec
from holdfast.config import Config
from holdfast.domain.accept import accept
from holdfast.domain.health import Judgement, Watching, judge
from holdfast.domain.lead import Leading, Service, lead
from holdfast.domain.observation import Capabilities, Manifest
from holdfast.domain.orders import order
from holdfast.domain.replication import Copies, holders
from holdfast.errors import ClusterError, Conflict

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


class Leader:
    """The work of whoever leads."""

    def __init__(
        self, sites: Sites, election: Election, heartbeats: Heartbeats, config: Config, capabilities: Capabilities
    ) -> None:
        self._sites = sites
        self._election = election
        self._heartbeats = heartbeats
        self._config = config
        self._capabilities = capabilities
        self._read: dict[tuple[str, str, str], tuple[str, Mapping[str, ServiceSeen]]] = {}
        self._again: dict[str, float] = {}
        """Service → when to decide anew although nothing happened (own monotonic clock)."""

    def due(self, at: float) -> set[str]:
        """The services whose time has come."""
        found = {service for service, when in self._again.items() if when <= at}
        for service in found:
            del self._again[service]
        return found

    async def lead(self, service: str, copies: Copies) -> None:
        """Decide on a service, and write what follows. A region that cannot be written is tried again."""
        own, epoch = copies.own.copy, self._election.epoch
        manifest = self._sites.own.services.objects.get(service)
        if own is None or own.deleting or manifest is None or epoch is None:
            return
        if len(holders(copies, own.version)) <= len(copies.everywhere) // 2:
            self._again[service] = time.monotonic() + RETRY_SECONDS
            return
        decided = self._decide(service, manifest, copies, epoch)
        if decided is None:
            return
        # People who look at the service are told first, as the writes below may take their time.
        for change in decided.changed:
            metrics.DECISIONS.labels(change.reason).inc()
            log.warning("%s: %s %s: %s", service, change.region, change.state, change.message)
            kind = "Normal" if change.reason in (Reason.STEADY, Reason.RAMPING_BACK) else "Warning"
            await announce(self._sites.own.cluster, manifest, kind, Reason(change.reason), change.message)
        written = await asyncio.gather(
            *(self._write(service, region, plan, epoch) for region, plan in decided.plans.items())
        )
        waits = [decided.again.total_seconds()] if decided.again is not None else []
        if not all(written):
            waits.append(RETRY_SECONDS)
        if waits:
            self._again[service] = time.monotonic() + max(0.1, min(waits))

    def _decide(self, service: str, manifest: Manifest, copies: Copies, epoch: int) -> Leading | None:
        own = copies.own.copy
        assert own is not None
        watched = Watched(
            service=manifest,
            children=(),
            pods=(),
            regions=self._sites.own.regions.objects.values(),
            services=self._sites.own.services.objects.values(),
        )
        try:
            seen = gather(watched, Written(), self._config, self._capabilities)
        except SpecUnreadable:
            return None
        if not accept(seen).accepted:
            return None  # the regions say so themselves, and keep to the plan that they have
        plans = self._plans(service)
        return lead(
            Service(
                now=now(),
                region=self._sites.region,
                epoch=epoch,
                name=seen.service.name,
                version=own.version,
                spec=seen.service.spec,
                regions=read_regions(self._sites.own.regions.objects.values()),
                engine_images=self._config.engine_images,
                plans=plans,
                health={region.name: self._judge(region.name, service) for region in seen.service.spec.regions},
                orders={region.name: order(self._annotations(region.name)) for region in seen.service.spec.regions},
            )
        )

    def _plans(self, service: str) -> dict[str, RegionPlan]:
        found = {}
        for name, site in self._sites.all.items():
            manifest = site.plans.objects.get(service)
            if manifest and (plan := read_plan(manifest)):
                found[name] = plan
        return found

    def _judge(self, region: str, service: str) -> Judgement:
        """The majority's verdict of those observers that live."""
        heard = self._heartbeats.heard()
        views = {}
        for name, site in self._sites.all.items():
            if name not in heard or not site.regions.complete:
                continue
            seen = self._seen(site, region).get(service)
            if seen is not None:
                views[name] = Watching(seen.verdict, _reason(seen.reason), seen.message or "")
        return judge(region, views, len(self._sites.voters))

    def _seen(self, site: Site, region: str) -> Mapping[str, ServiceSeen]:
        """Service → what one site's observer holds of it in a region; each version of it is read once."""
        manifest = site.regions.objects.get(region)
        if manifest is None:
            return {}
        version = str(manifest["metadata"].get("resourceVersion"))
        known = self._read.get((site.key, site.name, region))
        if known is None or known[0] != version:
            status = read_status(manifest)
            found = {each.service: each for each in status.services} if status.observer == site.name else {}
            known = self._read[site.key, site.name, region] = (version, found)
        return known[1]

    def _annotations(self, region: str) -> list[Mapping[str, str]]:
        found = (site.regions.objects.get(region) for site in self._sites.all.values())
        return [each["metadata"].get("annotations", {}) for each in found if each]

    async def _write(self, service: str, region: str, plan: RegionPlanSpec, epoch: int) -> bool:
        """Write one region's plan if it differs; False if it has to be tried again."""
        site = self._sites.all.get(region)
        if site is None or not site.plans.complete:
            return False
        before = site.plans.objects.get(service)
        current = read_plan(before) if before else None
        if current and current.spec == plan:
            return True
        copy = site.services.objects.get(service)
        if copy is None or not self._election.sealed(region) or self._election.epoch != epoch:
            return False
        if current and current.spec.epoch > epoch:
            log.warning("%s has a plan of epoch %s: another leads", region, current.spec.epoch)
            self._election.step_down()
            return False
        manifest = _manifest(service, plan, copy, before)
        try:
            answer = await (site.cluster.replace(manifest) if before else site.cluster.create(manifest))
        except Conflict as error:
            log.debug("the plan of %s for %s was written by somebody else: %s", service, region, error)
            return False
        except ClusterError as error:
            log.warning("the plan of %s for %s could not be written: %s", service, region, error)
            return False
        metrics.WRITES.labels("RegionPlan").inc()
        site.plans.remember(answer)
        return True


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        return Reason.NOT_SEEN_YET


def _manifest(service: str, plan: RegionPlanSpec, copy: Manifest, before: Manifest | None) -> dict[str, Any]:
    namespace, _, name = service.partition("/")
    kept = {key: value for key, value in (before or {}).get("metadata", {}).items() if key != "managedFields"}
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": "LLMService",
        "name": name,
        "uid": copy["metadata"]["uid"],
        "controller": True,
    }
    labels = {names.MANAGED_BY_LABEL: names.MANAGER, names.SERVICE_LABEL: name, names.REGION_LABEL: plan.region}
    return {
        "apiVersion": names.API_VERSION,
        "kind": "RegionPlan",
        "metadata": {**kept, "namespace": namespace, "name": name, "labels": labels, "ownerReferences": [owner]},
        "spec": plan.wire(),
    }
