"""The status of the own cluster's `Region` objects: what this operator sees of each region, and its tombstones.

The other operators read it there. It is the memory that survives a restart, so nothing is written before it was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from holdfast.adapters import metrics
from holdfast.adapters.cluster import Cluster
from holdfast.adapters.election import Election
from holdfast.adapters.observe import now
from holdfast.adapters.probes import Observer
from holdfast.adapters.sites import Trouble
from holdfast.api.conditions import ConditionType, Reason
from holdfast.api.region import RefusedCopy, RegionStatus, ServiceSeen, Tombstone
from holdfast.domain.observation import Manifest, Ref
from holdfast.domain.status import Finding, conditions
from holdfast.errors import NotFound


@dataclass
class RegionStatuses:
    """What was published last, and what shall be next."""

    cluster: Cluster
    region: str
    known: bool = False
    """Whether what was published before this operator started has been read."""
    last: dict[str, RegionStatus] = field(default_factory=dict)
    tombstones: dict[str, Tombstone] = field(default_factory=dict)
    """Service → the tombstone that the own region lists."""
    twins: dict[str, str | None] = field(default_factory=dict)
    """Region → another one that turned out to be the same cluster."""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def published(self) -> bool:
        """Whether anything was ever published."""
        return any(status.observer for status in self.last.values())

    def load(self, regions: Mapping[str, Manifest]) -> None:
        """Read what an earlier operator has published; once."""
        if self.known:
            return
        self.last = {name: read_status(manifest) for name, manifest in regions.items()}
        own = self.last.get(self.region, RegionStatus())
        self.tombstones = {each.service: each for each in own.tombstones}
        self.known = True

    async def list_tombstone(self, service: str, tombstone: Tombstone | None) -> None:
        """List what the own region has buried; returns once it is stored. Raises ClusterError."""
        async with self._lock:
            if self.tombstones.get(service) == tombstone:
                return
            after = {name: each for name, each in self.tombstones.items() if name != service}
            if tombstone is not None:
                after[service] = tombstone
            listed = tuple(each for _, each in sorted(after.items()))
            await self._write(self.region, self._before(self.region).model_copy(update={"tombstones": listed}))
            self.tombstones = after

    async def publish(
        self,
        regions: Mapping[str, Manifest],
        observer: Observer,
        troubles: Mapping[str, Trouble | None],
        election: Election,
        refused: Mapping[str, str],
    ) -> None:
        """Write what differs from what was published last. Raises ClusterError.

        `refused`: service → why this region's API server does not take the latest edit.
        """
        async with self._lock:
            for name, manifest in list(regions.items()):
                before = self._before(name)
                after = self._status(name, manifest, observer, troubles.get(name), election, refused)
                if after != before:
                    await self._write(name, after)

    def _before(self, name: str) -> RegionStatus:
        return self.last.get(name, RegionStatus())

    async def _write(self, name: str, status: RegionStatus) -> None:
        wire = status.wire()
        for gone in [key for key in self._before(name).wire() if key not in wire]:
            wire[gone] = None
        try:
            await self.cluster.patch_status(Ref("Region", "", name), wire)
        except NotFound:
            return  # deleted meanwhile
        metrics.WRITES.labels("RegionStatus").inc()
        self.last[name] = status

    def _status(
        self,
        name: str,
        manifest: Manifest,
        observer: Observer,
        trouble: Trouble | None,
        election: Election,
        refused: Mapping[str, str],
    ) -> RegionStatus:
        before = self._before(name)
        findings = [self._reachable(name, trouble)]
        if name == self.region:
            findings.append(_quorum(election))
        generation = int(manifest["metadata"].get("generation", 1))
        gateway = observer.regions.get(name)
        return RegionStatus(
            observer=self.region,
            verdict=gateway.verdict if gateway else None,
            services=_services(name, before, observer),
            tombstones=before.tombstones,
            refused=_refused(refused) if name == self.region else (),
            conditions=conditions(before.conditions, generation, now(), findings),
        )

    def _reachable(self, name: str, trouble: Trouble | None) -> Finding:
        if twin := self.twins.get(name):
            message = f"The kubeconfig of {name} leads to the same cluster as that of {twin}: give it its own."
            return Finding(ConditionType.REACHABLE, False, Reason.SAME_CLUSTER, message)
        if trouble is None:
            return Finding(ConditionType.REACHABLE, True, Reason.PEER_REACHED, f"The API server of {name} answers.")
        before = next((each for each in self._before(name).conditions if each.type == ConditionType.REACHABLE), None)
        # Errors' words change from try to try; that alone is not worth a write.
        message = before.message if before and before.reason == trouble.reason else trouble.message
        return Finding(ConditionType.REACHABLE, False, trouble.reason, message)


def read_status(manifest: Manifest) -> RegionStatus:
    """The status of a `Region`; one that cannot be read counts as none."""
    try:
        return RegionStatus.parse(manifest.get("status", {}))
    except ValidationError:
        return RegionStatus()


def _services(region: str, before: RegionStatus, observer: Observer) -> tuple[ServiceSeen, ...]:
    """What is held of each service; words change from probe to probe and are kept while verdict and reason stay."""
    old = {each.service: each for each in before.services}
    found = []
    for (name, service), held in sorted(observer.services.items()):
        if name != region:
            continue
        seen = ServiceSeen(service=service, verdict=held.verdict, reason=held.reason, message=held.message)
        last = old.get(service)
        same = last is not None and (last.verdict, last.reason) == (seen.verdict, seen.reason)
        found.append(last if same and last is not None else seen)
    return tuple(found)


def _refused(found: Mapping[str, str]) -> tuple[RefusedCopy, ...]:
    return tuple(RefusedCopy(service=service, message=why) for service, why in sorted(found.items()))


def _quorum(election: Election) -> Finding:
    elector = election.elector
    voters, seen = len(elector.voters), len(election.readable())
    leader = election.leader()
    leads = f"{leader[0]} leads with epoch {leader[1]}" if leader else "nobody leads"
    if seen < elector.quorum:
        message = f"Only {seen} of {voters} voters answer; what runs stays as it is until {elector.quorum} do."
        return Finding(ConditionType.QUORUM, False, Reason.QUORUM_LOST, message)
    if voters % 2 == 0:
        message = f"{voters} voters tolerate no more failures than {voters - 1}; add a witness. Now {leads}."
        return Finding(ConditionType.QUORUM, True, Reason.VOTERS_EVEN, message)
    return Finding(
        ConditionType.QUORUM, True, Reason.QUORUM_REACHED, f"A majority of {voters} voters answers; {leads}."
    )
