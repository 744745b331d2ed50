"""This operator's part in the control plane of all regions: replicate, observe, elect, and lead if it is elected.

Each pass takes the services that something happened to, brings the own region's copies to the latest edit, and, while
this operator leads, writes the plans that follow from what it sees. What a region does with its plan is `reconcile`'s
work. Decisions are in `domain`; this module gathers what they may see and does what they say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.adapters import metrics
from holdfast.adapters.cluster import Cluster
from holdfast.adapters.election import Election
from holdfast.adapters.gateways import Gateways
from holdfast.adapters.heartbeat import Heartbeats
from holdfast.adapters.leader import Leader
from holdfast.adapters.observe import parse_service, read_plan, read_regions
from holdfast.adapters.probes import PERIOD_SECONDS, Observer, Target
from holdfast.adapters.regionstatus import RegionStatuses
from holdfast.adapters.replicate import Replicator
from holdfast.adapters.sites import Site, Sites
from holdfast.api.region import RegionRole, RegionSpec
from holdfast.config import Config
from holdfast.domain.health import Limits, Thresholds
from holdfast.domain.leadership import Terms
from holdfast.domain.observation import Capabilities, Control, Manifest
from holdfast.domain.replicas import replicas_of
from holdfast.domain.replication import holders
from holdfast.errors import ClusterError, NotFound, Rejected

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.03
"""Events come in bursts; those of this time after the first are answered by one pass."""
TICK_SECONDS = 1.0
"""A pass is made at least this often, for what is due by time or has failed."""
REFUSED_SECONDS = 15.0
"""What an API server refused is tried again after this time: only somebody else can mend it."""
AT_ONCE = 16
"""Services worked on at the same time."""


@dataclass
class Fleet:
    """All regions, as the operator of one of them sees and serves them."""

    cluster: Cluster
    config: Config
    capabilities: Capabilities
    wake: Callable[[str], None]
    """Called with `namespace/name` when what a region should know of a service may have changed."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        region, namespace = self.config.region, self.config.namespace
        self.sites = Sites(region, namespace, self.cluster, self.changed)
        terms = Terms(self.config.lease_seconds, self.config.renew_deadline_seconds, self.config.retry_seconds)
        self.election = Election(region, namespace, terms, self._touch_all)
        self.heartbeats = Heartbeats(namespace)
        self.statuses = RegionStatuses(self.cluster, region)
        self.replicator = Replicator(self.cluster, self.sites, self.statuses)
        self.leader = Leader(self.sites, self.election, self.heartbeats, self.config, self.capabilities)
        self.gateways = Gateways(self.config.peer_tls)
        self.observer = Observer()
        self._waiting: set[str] = set()
        """Services that the next pass must look at."""
        self._probed: dict[str, tuple[str, list[Target]]] = {}
        """Service → the version of its spec, and what is probed for it."""
        self._current: set[str] = set()
        """The regions that were known to be seen as they are when the last pass began."""
        self._heard: set[str] = set()
        """The observers that were heard when the last pass began."""
        self._said: dict[tuple[str, str, str], Said] = {}
        """(credentials of a site, site, region) → what its `Region` object said when the last pass began."""
        self._keys: dict[str, str] = {}
        """Region → the credentials that its Lease's uid was read with."""
        self._again: dict[str, float] = {}
        """Service that a step failed for → when to try again (monotonic clock)."""
        self._task: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether it is known if there are peers, and what the own region holds."""
        return self.sites.own.complete and self.statuses.known

    def start(self) -> None:
        """Begin; ends with `stop`."""
        self._task = asyncio.create_task(self._run(), name="fleet")

    async def stop(self) -> None:
        """Give the leadership back, and end."""
        if self._task is None:
            return
        clusters = {name: site.cluster for name, site in self.sites.all.items()}
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.election.resign(clusters), 3.0)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def control(self, service: str, acted: Mapping[str, Any]) -> Control | None:
        """What the regions have agreed on about a service; None where this region stands alone.

        The seal is asked for where there is a plan other than the one that this region acts on (`acted`, the status'
        `plan`), after that plan was read. Raises ClusterError if it cannot be had.
        """
        if self.sites.alone:
            return None
        seen = self.replicator.copies(service)
        own = seen.own.copy
        if own is None:
            return None
        manifest = self.sites.own.plans.objects.get(service)
        plan = read_plan(manifest) if manifest else None
        sealed = 0
        if plan and (plan.generation, plan.spec.epoch) != (acted.get("generation"), acted.get("epoch")):
            sealed = await self.election.seal_of(self.config.region, self.cluster)
        return Control(
            version=own.version,
            holders=holders(seen, own.version),
            voters=len(self.sites.voters),
            plan=plan,
            sealed=sealed,
            refusals={name: each.refused for name, each in seen.everywhere.items() if each.refused},
            lost=self.replicator.lost.get(service, ""),
        )

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_forever("following the regions", self.sites.run))
            tasks.create_task(_forever("electing", lambda: self.election.run(self._clusters, self._preferences)))
            tasks.create_task(_forever("heartbeats", lambda: self.heartbeats.run(self._clusters, self.config.region)))
            tasks.create_task(_forever("observing", self._observe))
            tasks.create_task(_forever("working", self._work))

    def _clusters(self) -> dict[str, Cluster]:
        """The voters that can be asked; one cluster under two names counts once."""
        if self.sites.alone:
            return {}
        found: dict[str, Cluster] = {}
        for name, site in self.sites.all.items():
            if self._keys.get(name) != site.key:  # another kubeconfig, maybe another cluster
                self._keys[name] = site.key
                self.election.uids.pop(name, None)
            uid = self.election.uids.get(name)
            twin = next((other for other in found if uid and self.election.uids.get(other) == uid), None)
            if twin is None:
                found[name] = site.cluster
            self.statuses.twins[name] = twin
        return found

    def _preferences(self) -> dict[str, int]:
        if self.sites.alone or not self.sites.own.regions.complete:
            return {}
        return {
            each["metadata"]["name"]: int(each["spec"].get("preference", 100))
            for each in self.sites.own.regions.objects.values()
        }

    def _touch_all(self) -> None:
        self._waiting |= set(self.sites.own.services.objects)
        self.changed.set()

    async def _work(self) -> None:
        """Pass after pass: what was touched, what is due, what has failed before."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), TICK_SECONDS)
                await asyncio.sleep(SETTLE_SECONDS)
            self.changed.clear()
            if not self.sites.own.complete:
                continue
            try:
                self.statuses.load(self.sites.own.regions.objects)
                await self._pass()
            except Exception:
                log.exception("a pass over the regions failed; what runs stays as it is")
                await asyncio.sleep(1.0)

    async def _pass(self) -> None:
        now = time.monotonic()
        touched = self._touched() | self.leader.due(now) | {each for each, at in self._again.items() if at <= now}
        if touched:
            gate = asyncio.Semaphore(AT_ONCE)

            async def one(service: str) -> None:
                async with gate:
                    await self._serve(service)

            await asyncio.gather(*(one(service) for service in sorted(touched)))
        await self._report()

    def _touched(self) -> set[str]:
        """The services that something happened to since the last pass.

        All of them if a region came into sight or was lost from it: what is only done once it is known what every
        region holds may be due, although no object changed. And all if an observer is heard again, or no longer.
        """
        touched, self._waiting = self._waiting, set()
        current = {name for name, site in self.sites.all.items() if site.current()}
        heard = self.heartbeats.heard()
        all_of_them = (current, heard) != (self._current, self._heard)
        self._current, self._heard = current, heard
        for site in self.sites.all.values():
            for mirror in (site.services, site.plans):
                touched |= mirror.touched
                mirror.touched = set()
            for region in site.regions.touched:
                concerned = self._concerned(site, region)
                all_of_them |= concerned is None
                touched |= concerned or set()
            site.regions.touched = set()
        if all_of_them:
            touched |= set(self.sites.own.services.objects) | self.replicator.buried()
        return touched

    def _concerned(self, site: Site, region: str) -> set[str] | None:
        """The services that a change of a `Region` object concerns; None: all.

        Observers write there what they see of each service: with many services, one of them differs again and again.
        """
        key = (site.key, site.name, region)
        before, manifest = self._said.pop(key, None), site.regions.objects.get(region)
        if manifest is None:
            return None
        after = self._said[key] = said_by(manifest)
        if before is None or before.of_all != after.of_all:
            return None
        names = {*before.of_each, *after.of_each}
        return {each for each in names if before.of_each.get(each) != after.of_each.get(each)}

    async def _serve(self, service: str) -> None:
        try:
            if self.sites.alone:
                await self.replicator.let_go(service)
                return
            await self.replicator.step(service)
            if self.election.epoch is not None:
                await self.leader.lead(service, self.replicator.copies(service))
        except ClusterError as error:
            log.warning("%s: %s", service, error)
            refused = isinstance(error, Rejected | NotFound)
            self._again[service] = time.monotonic() + (REFUSED_SECONDS if refused else TICK_SECONDS)
        else:
            self._again.pop(service, None)
        self.wake(service)

    async def _report(self) -> None:
        """Publish what this operator sees, where it differs from what it published last."""
        if self.sites.alone and not self.statuses.published:
            self.statuses.known = True
            return
        regions = self.sites.own.regions.objects
        for name in regions:
            metrics.PEER.labels(name).set(self.sites.trouble(name) is None)
        try:
            await self.statuses.publish(
                regions,
                self.observer,
                {name: self.sites.trouble(name) for name in regions},
                self.election,
                self.replicator.refused,
            )
        except ClusterError as error:
            log.warning("what this operator sees of the regions could not be published: %s", error)

    async def _observe(self) -> None:
        """Probe every region, once a second at most."""
        async with self.gateways as gateways:
            while True:
                started = time.monotonic()
                if self.ready and not self.sites.alone:
                    self.observer.restore(self.statuses.last, self.config.region)
                    gateways.renew()
                    regions, targets = self._targets()
                    if await self.observer.observe(gateways, regions, targets):
                        self.changed.set()
                await asyncio.sleep(max(0.05, PERIOD_SECONDS - (time.monotonic() - started)))

    def _targets(self) -> tuple[dict[str, RegionSpec], list[Target]]:
        regions = read_regions(self.sites.own.regions.objects.values())
        serving = {name: each.spec for name, each in regions.items() if each.spec.role is RegionRole.SERVING}
        found: dict[str, tuple[str, list[Target]]] = {}
        for name, manifest in self.sites.own.services.objects.items():
            # Reading a spec takes its time, so each version of it is read once.
            version = f"{manifest['metadata'].get('uid')}/{manifest['metadata'].get('generation')}"
            known = self._probed.get(name)
            found[name] = known if known and known[0] == version else (version, list(targets_of(name, manifest)))
        self._probed = found
        return serving, [each for _, targets in found.values() for each in targets if each.region in serving]


@dataclass(frozen=True)
class Said:
    """What a `Region` object says that services depend on."""

    of_all: Any
    of_each: Mapping[str, list[Any]]
    """Service → its entries in the status."""


def said_by(manifest: Manifest) -> Said:
    """What a `Region` object says; its own verdict and conditions are for people."""
    meta = manifest["metadata"]
    rest: dict[str, Any] = {}
    of_each: dict[str, list[Any]] = {}
    for key, value in manifest.get("status", {}).items():
        if isinstance(value, list) and all(isinstance(each, Mapping) and "service" in each for each in value):
            for each in value:
                of_each.setdefault(str(each["service"]), []).append((key, each))
        elif key not in ("verdict", "conditions"):
            rest[key] = value
    return Said((meta.get("annotations"), manifest.get("spec"), rest), of_each)


async def _forever(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """None of these may end before the operator does, whatever happens in one of them."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("%s failed; it begins anew", what)
        await asyncio.sleep(1.0)


def targets_of(name: str, manifest: Manifest) -> Iterable[Target]:
    """What is to be probed for a service; nothing for one that is going or cannot be read."""
    if "deletionTimestamp" in manifest["metadata"]:
        return
    try:
        spec = parse_service(manifest).spec
    except ValueError:
        return
    rules = spec.failover
    thresholds = Thresholds(rules.unhealthy_after.total_seconds(), rules.healthy_after.total_seconds())
    limits = Limits(rules.progress_timeout.total_seconds(), rules.max_error_rate)
    for region in spec.regions:
        if replicas_of(spec, region)[0]:
            yield Target(name, spec.model.name, region.name, thresholds, limits)
