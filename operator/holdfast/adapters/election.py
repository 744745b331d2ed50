"""Takes part in the election: reads and writes one Lease in every voter's API server, as the domain says."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from holdfast.adapters import metrics
from holdfast.adapters.cluster import Cluster
from holdfast.api import names
from holdfast.domain.leadership import Elector, Lease, LeaseWrite, Terms, preference_delay
from holdfast.domain.observation import Manifest, Ref
from holdfast.errors import ClusterError, NotFound, Unreachable

log = logging.getLogger(__name__)

LEASES = "coordination.k8s.io/v1"
PATIENCE = 0.4
"""Longest time for one request, in parts of the time in which a leader must renew: an API server that works hard is
slow, not dead, and a request each to read and to write fit in."""
PATIENCE_WITH_SILENT = 0.15
"""The same for a voter that has not answered lately: it must not hold up the others."""


class Election:
    """This operator's leadership, and what it saw of the voters' Leases."""

    def __init__(self, region: str, namespace: str, terms: Terms, changed: Callable[[], None]) -> None:
        self.identity = f"{region}_{uuid.uuid4().hex[:8]}"
        self.elector = Elector(self.identity, (), terms, random.random)
        self.uids: dict[str, str] = {}
        """Voter → uid of its Lease, which tells clusters apart."""
        self._namespace = namespace
        self._region = region
        self._changed = changed
        self._manifests: dict[str, Manifest] = {}
        self._seals: dict[str, NextRead] = {}
        self._was: int | None = None

    @property
    def epoch(self) -> int | None:
        """The epoch to write plans with now; None while another leads, or nobody."""
        return self.elector.leading(time.monotonic())

    def sealed(self, voter: str) -> bool:
        """Whether plans may be written in a region."""
        return self.elector.sealed(voter, time.monotonic())

    def leader(self) -> tuple[str, int] | None:
        """(region, epoch) of whom a majority of the voters names as the leader, as last read."""
        named = [each.lease for each in self.elector.sightings.values() if each.lease.holder]
        for lease in named:
            if sum(other == lease for other in named) >= self.elector.quorum:
                return lease.holder.rpartition("_")[0], lease.epoch
        return None

    def readable(self) -> set[str]:
        """The voters that answered lately."""
        oldest = time.monotonic() - 3 * self.elector.terms.retry
        return {voter for voter, sighting in self.elector.sightings.items() if sighting.at >= oldest}

    def step_down(self) -> None:
        """Stop leading at once: somebody else has a larger epoch."""
        self.elector.step_down(time.monotonic())
        self._report()

    async def run(
        self, clusters: Callable[[], Mapping[str, Cluster]], preferences: Callable[[], dict[str, int]]
    ) -> None:
        """Read, bid and renew until cancelled."""
        while True:
            started = time.monotonic()
            order = preferences()
            self.elector.voters = tuple(order)
            self.elector.delay = preference_delay(self._region, order, step=self.elector.terms.retry / 8)
            if order:
                await self.turn(clusters())
            spent = time.monotonic() - started
            await asyncio.sleep(max(0.05, self.elector.terms.retry * random.uniform(0.9, 1.0) - spent))

    async def turn(self, clusters: Mapping[str, Cluster]) -> None:
        """Look at every voter once, and write what is to be written."""
        voters = {name: cluster for name, cluster in clusters.items() if name in self.elector.voters}
        for gone in [name for name in self.elector.sightings if name not in voters]:
            del self.elector.sightings[gone]
        await asyncio.gather(*(self._read(name, cluster) for name, cluster in voters.items()))
        await self._write(voters, self.elector.wanted(time.monotonic()))
        self._report()

    async def resign(self, clusters: Mapping[str, Cluster]) -> None:
        """Give the Leases back, so that another need not wait."""
        leading = self.epoch
        await self._write(clusters, self.elector.resign(time.monotonic()))
        if leading is not None:
            log.info("gave the leadership of epoch %s back", leading)

    async def seal_of(self, voter: str, cluster: Cluster) -> int:
        """The epoch that a region is sealed with now. Raises ClusterError: without it no new plan may be acted on.

        It is read after it was asked for; many that ask at once share a read.
        """
        return await self._seals.setdefault(voter, NextRead(lambda: self._seal_of(voter, cluster))).get()

    async def _seal_of(self, voter: str, cluster: Cluster) -> int:
        try:
            return _lease(
                await cluster.get(LEASES, Ref("Lease", self._namespace, names.LEASE), self._patience(voter))
            ).epoch
        except NotFound:
            return 0
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unreachable(f"the Lease of {voter} cannot be understood: {error}") from error

    async def _read(self, voter: str, cluster: Cluster) -> None:
        try:
            found = await cluster.get(LEASES, Ref("Lease", self._namespace, names.LEASE), self._patience(voter))
        except NotFound:
            self._manifests.pop(voter, None)
            self.elector.saw(voter, Lease(), "", time.monotonic())
            return
        except ClusterError as error:
            log.debug("the Lease of %s cannot be read: %s", voter, error)
            return
        try:
            lease = _lease(found)
        except (KeyError, TypeError, ValueError, AttributeError):
            log.debug("the Lease of %s cannot be understood", voter)
            return
        self.uids[voter] = found["metadata"]["uid"]
        self._manifests[voter] = found
        self.elector.saw(voter, lease, found["metadata"]["resourceVersion"], time.monotonic())

    async def _write(self, clusters: Mapping[str, Cluster], writes: list[LeaseWrite]) -> None:
        await asyncio.gather(
            *(self._write_one(clusters[each.voter], each) for each in writes if each.voter in clusters)
        )

    async def _write_one(self, cluster: Cluster, write: LeaseWrite) -> None:
        sent = time.monotonic()
        manifest = self._manifest(write)
        version = None
        try:
            if write.version:
                answer = await cluster.replace(manifest, self._patience(write.voter))
            else:
                answer = await cluster.create(manifest, self._patience(write.voter))
            version = answer["metadata"]["resourceVersion"]
            self._manifests[write.voter] = answer
        except ClusterError as error:
            log.debug("the Lease of %s was not written: %s", write.voter, error)
        metrics.LEASE_WRITES.labels("written" if version else "failed").inc()
        self.elector.wrote(write, version, sent, time.monotonic())

    def _patience(self, voter: str) -> float:
        """Seconds for a request to a voter."""
        part = PATIENCE if voter in self.readable() else PATIENCE_WITH_SILENT
        return max(1.0, part * self.elector.terms.renew_deadline)

    def _manifest(self, write: LeaseWrite) -> dict[str, Any]:
        before: Mapping[str, Any] = self._manifests.get(write.voter, {}) if write.version else {}
        meta = dict(before.get("metadata", {}))
        meta.pop("managedFields", None)
        meta |= {"name": names.LEASE, "namespace": self._namespace}
        meta["annotations"] = {**meta.get("annotations", {}), names.EPOCH_ANNOTATION: str(write.lease.epoch)}
        if write.version:
            meta["resourceVersion"] = write.version
        spec = {
            **before.get("spec", {}),
            "holderIdentity": write.lease.holder,
            "leaseDurationSeconds": round(self.elector.terms.duration) or 1,
            "renewTime": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        }
        return {"apiVersion": LEASES, "kind": "Lease", "metadata": meta, "spec": spec}

    def _report(self) -> None:
        epoch = self.epoch
        if epoch != self._was:
            if epoch is None:
                log.warning("no longer the leader of epoch %s", self._was)
            else:
                log.info("leads with epoch %s, by the Leases of %s", epoch, ", ".join(sorted(self.elector.held)))
                metrics.ELECTIONS.inc()
            self._was = epoch
            self._changed()
        metrics.LEADING.set(epoch is not None)
        metrics.EPOCH.set(self.elector.largest_epoch())


class NextRead:
    """A read that all who ask before it begins share; who asks while it is under way gets the next one."""

    def __init__(self, read: Callable[[], Awaitable[int]]) -> None:
        self._read = read
        self._next: asyncio.Task[int] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def get(self) -> int:
        """What is read from now on. Raises what the read raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._run())
        return await asyncio.shield(self._next)

    async def _run(self) -> int:
        async with self._one_at_a_time:
            self._next = None
            return await self._read()


def _lease(manifest: Manifest) -> Lease:
    epoch = int(manifest["metadata"].get("annotations", {}).get(names.EPOCH_ANNOTATION, "0"))
    return Lease(manifest.get("spec", {}).get("holderIdentity") or "", epoch)
