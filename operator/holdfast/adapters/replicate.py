"""Brings the own region's copies of services to the latest edit, and keeps deleted ones deleted."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from holdfast.adapters import metrics
from holdfast.adapters.announce import announce
from holdfast.adapters.cluster import Cluster
from holdfast.adapters.regionstatus import RegionStatuses
from holdfast.adapters.sites import Site, Sites
from holdfast.api import names
from holdfast.api.region import Tombstone
from holdfast.domain.copies import Copy, Stamp, Version, read_copy
from holdfast.domain.observation import Manifest, Ref
from holdfast.domain.replication import (
    Bring,
    Copies,
    Held,
    Remove,
    Renew,
    explain,
    holders,
    next_step,
    next_tombstone,
    tombstone_of,
)
from holdfast.errors import Conflict, NotFound, Rejected

log = logging.getLogger(__name__)


class Replicator:
    """Replication into one region."""

    def __init__(self, cluster: Cluster, sites: Sites, statuses: RegionStatuses) -> None:
        self.lost: dict[str, str] = {}
        """Service → a sentence on its latest edit of this region that was replaced."""
        self.refused: dict[str, str] = {}
        """Service → why the own API server does not take its latest edit."""
        self._cluster = cluster
        self._sites = sites
        self._statuses = statuses
        self._read: dict[tuple[str, str], tuple[str, Copy]] = {}
        self._edits: dict[str, tuple[Version, float | None]] = {}

    def copies(self, service: str) -> Copies:
        """A service in every region, as far as it can be seen."""
        sites, own = self._sites.all, self._sites.region
        peers = {
            name: self._held(sites[name], service) if name in sites else Held(current=False)
            for name in self._sites.voters
            if name != own
        }
        held = self._held(self._sites.own, service)
        buried, refused = self._statuses.tombstones.get(service), self.refused.get(service, "")
        return Copies(service, own, Held(held.current, held.copy, buried, refused), peers)

    def buried(self) -> set[str]:
        """Every service that some region lists as deleted."""
        found = set(self._statuses.tombstones)
        for site in self._sites.peers.values():
            found |= {each.service for each in _tombstones(site)}
        return found

    async def step(self, service: str) -> None:
        """Do what is to be done to the own copy and tombstone. Raises ClusterError."""
        manifest = self._sites.own.services.objects.get(service)
        seen = self.copies(service)
        self._time(service, seen)
        if manifest and seen.own.copy and seen.own.copy.deleting:
            await self._statuses.list_tombstone(service, tombstone_of(service, seen.own.copy, seen))
            await self.let_go(service)
            return
        step = next_step(seen)
        try:
            if step is not None:
                await self._do(service, step)
                seen = self.copies(service)
            elif manifest and not _protected(manifest):
                await self._put(service, _with_finalizers(manifest, [*_finalizers(manifest), names.FINALIZER]))
                seen = self.copies(service)
        except Conflict as error:
            log.debug("%s changed meanwhile: %s", service, error)
        except (Rejected, NotFound) as error:
            if isinstance(step, Bring):
                self.refused[service] = str(error)
            raise
        self.refused.pop(service, None)
        await self._statuses.list_tombstone(service, next_tombstone(seen))

    async def let_go(self, service: str) -> None:
        """Let a copy that is being deleted vanish. Raises ClusterError."""
        manifest = self._sites.own.services.objects.get(service)
        if manifest and "deletionTimestamp" in manifest["metadata"] and _protected(manifest):
            await self._put(
                service, _with_finalizers(manifest, [each for each in _finalizers(manifest) if each != names.FINALIZER])
            )
            log.info("%s: its deletion is noted, so it may go", service)

    async def _put(self, service: str, manifest: Manifest) -> None:
        try:
            self._remember(await self._cluster.replace(manifest))
        except Conflict as error:
            log.debug("%s changed meanwhile: %s", service, error)
        except NotFound:
            return

    async def _do(self, service: str, step: Bring | Renew | Remove) -> None:
        manifest = self._sites.own.services.objects.get(service)
        said = explain(step)
        if isinstance(step, Remove):
            namespace, _, name = service.partition("/")
            if said and manifest:
                await announce(self._cluster, manifest, "Warning", *said)
            await self._cluster.delete(names.API_VERSION, Ref("LLMService", namespace, name), step.lost.uid)
            log.info("%s: deleted, as it was deleted in another region", service)
        elif isinstance(step, Renew):
            assert manifest is not None
            self._remember(await self._cluster.replace(_stamped(manifest, manifest["spec"], step.stamp)))
            log.info("%s: stamped as edit %s, incarnation %s", service, step.stamp.number, step.stamp.incarnation)
        else:
            if said and manifest:  # said before it is done: a crash in between says it twice rather than never
                self.lost[service] = said[1]
                log.warning("%s: %s", service, said[1])
                await announce(self._cluster, manifest, "Warning", *said)
            await self._bring(service, step, manifest)
        metrics.COPIES.labels(type(step).__name__).inc()

    async def _bring(self, service: str, step: Bring, manifest: Manifest | None) -> None:
        namespace, _, name = service.partition("/")
        spec = step.source.spec
        if manifest is None:
            bare = {"metadata": {"namespace": namespace, "name": name}}
            try:
                answer = await self._cluster.create(_stamped(bare, spec, step.stamp))
            except NotFound as error:
                raise NotFound(f"It cannot be created here; does namespace {namespace} exist? {error}") from error
        else:
            answer = await self._cluster.replace(_stamped(manifest, spec, step.stamp))
        generation = answer["metadata"]["generation"]
        if generation != step.stamp.generation:  # this API server stores the spec in another way
            stamp = step.stamp.model_copy(update={"generation": generation})
            answer = await self._cluster.replace(_stamped(answer, answer["spec"], stamp))
        self._remember(answer)
        version = step.source.version
        log.info("%s: brought to edit %s, made in %s", service, version.number, step.source.origin)

    def _remember(self, answer: Manifest) -> None:
        gone = "deletionTimestamp" in answer["metadata"] and not _finalizers(answer)
        if not gone:  # else it went with this very write
            self._sites.own.services.remember(answer)

    def _held(self, site: Site, service: str) -> Held:
        manifest = site.services.objects.get(service)
        if manifest and site is not self._sites.own and not _protected(manifest):
            manifest = None  # its own operator has not taken it on yet; until then its deletion would go unnoticed
        tombstone = next((each for each in _tombstones(site) if each.service == service), None)
        copy = self._copy(site.name, service, manifest) if manifest else None
        return Held(site.current(), copy, tombstone, _refusal(site, service))

    def _copy(self, region: str, service: str, manifest: Manifest) -> Copy:
        """Reading a copy takes a digest, so each version of it is read once."""
        version = f"{manifest['metadata'].get('uid')}/{manifest['metadata'].get('resourceVersion')}"
        known = self._read.get((region, service))
        if known is None or known[0] != version:
            replication = manifest.get("status", {}).get("replication", {})
            copy = read_copy(region, manifest, replication.get("majorityDigest", ""))
            known = self._read[region, service] = (version, copy)
        return known[1]

    def _time(self, service: str, seen: Copies) -> None:
        """Measure how long edits of this region take to reach a majority."""
        own = seen.own.copy
        if own is None or own.deleting:
            self._edits.pop(service, None)
            self.lost.pop(service, None)
            return
        before = self._edits.get(service)
        if before is None or before[0] != own.version:
            if before and own.edited_here:
                self.lost.pop(service, None)
            # What is there at the start was not edited just now.
            self._edits[service] = (own.version, time.monotonic() if before and own.edited_here else None)
        version, since = self._edits[service]
        if since is not None and len(holders(seen, version)) > len(seen.everywhere) // 2:
            metrics.LAG.observe(time.monotonic() - since)
            self._edits[service] = (version, None)


def _tombstones(site: Site) -> list[Tombstone]:
    status = site.regions.objects.get(site.name, {}).get("status", {})
    found = []
    for each in status.get("tombstones", ()):
        try:
            found.append(Tombstone.parse(each))
        except ValueError:
            continue
    return found


def _refusal(site: Site, service: str) -> str:
    """Why a peer's API server does not take the latest edit of a service, as its operator says."""
    status = site.regions.objects.get(site.name, {}).get("status", {})
    found = (each for each in status.get("refused", ()) if isinstance(each, dict))
    return next((str(each.get("message")) for each in found if each.get("service") == service), "")


def _stamped(manifest: Manifest, spec: Any, stamp: Stamp) -> dict[str, Any]:
    meta = {key: value for key, value in manifest["metadata"].items() if key != "managedFields"}
    text = json.dumps(stamp.wire(), separators=(",", ":"), sort_keys=True)
    meta["annotations"] = {**meta.get("annotations", {}), names.STAMP_ANNOTATION: text}
    if not _protected(manifest):
        meta["finalizers"] = [*_finalizers(manifest), names.FINALIZER]
    return {"apiVersion": names.API_VERSION, "kind": "LLMService", "metadata": meta, "spec": spec}


def _finalizers(manifest: Manifest) -> list[str]:
    return list(manifest["metadata"].get("finalizers") or ())


def _protected(manifest: Manifest) -> bool:
    return names.FINALIZER in _finalizers(manifest)


def _with_finalizers(manifest: Manifest, finalizers: list[str]) -> dict[str, Any]:
    meta = {key: value for key, value in manifest["metadata"].items() if key != "managedFields"}
    whole = {"apiVersion": names.API_VERSION, "kind": "LLMService", "metadata": meta | {"finalizers": finalizers}}
    return whole | {"spec": manifest["spec"]}
