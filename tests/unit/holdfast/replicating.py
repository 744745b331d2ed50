"""Three regions whose operators replicate a service, step by step, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.api.names import STAMP_ANNOTATION
from holdfast.api.region import Tombstone
from holdfast.domain.copies import Stamp, Version, read_copy
from holdfast.domain.replication import (
    Bring,
    Copies,
    Held,
    Remove,
    Renew,
    explain,
    next_step,
    next_tombstone,
    tombstone_of,
)

SERVICE = "default/chat"
NAMES = ("us-east", "eu-west", "ap-south")


@dataclass
class Region:
    """One region's API server and its operator's replication."""

    name: str
    manifest: dict[str, Any] | None = None
    tombstone: Tombstone | None = None
    uids: int = 0
    lost: list[str] = field(default_factory=list)

    def held(self) -> Held:
        return Held(True, read_copy(self.name, self.manifest) if self.manifest else None, self.tombstone)

    def edit(self, content: str) -> None:
        assert self.manifest
        if self.manifest["spec"] != {"content": content}:
            meta = {**self.manifest["metadata"], "generation": self.manifest["metadata"]["generation"] + 1}
            self.manifest = {"metadata": meta, "spec": {"content": content}}

    def create(self, content: str, stamp: Stamp | None = None) -> None:
        self.uids += 1
        meta: dict[str, Any] = {"uid": f"{self.name}-{self.uids}", "generation": 1}
        if stamp:
            meta["annotations"] = {STAMP_ANNOTATION: stamp.model_dump_json()}
        self.manifest = {"metadata": meta, "spec": {"content": content}}

    def delete(self) -> None:
        assert self.manifest
        self.manifest = {**self.manifest, "metadata": {**self.manifest["metadata"], "deletionTimestamp": "now"}}

    def stamped(self, stamp: Stamp) -> None:
        assert self.manifest
        self.manifest["metadata"]["annotations"] = {STAMP_ANNOTATION: stamp.model_dump_json()}


class Regions:
    """Three regions, any of which may be cut off."""

    def __init__(self) -> None:
        self.all = {name: Region(name) for name in NAMES}
        self.away: set[str] = set()
        self._last: dict[tuple[str, str], Held] = {}

    def __getitem__(self, name: str) -> Region:
        return self.all[name]

    def seen_by(self, name: str) -> Copies:
        peers = {}
        for other in NAMES:
            if other == name:
                continue
            if not self.away & {name, other}:
                self._last[name, other] = self.all[other].held()
                peers[other] = self._last[name, other]
            else:
                peers[other] = replace(self._last.get((name, other), Held(False)), current=False)
        return Copies(SERVICE, name, self.all[name].held(), peers)

    def turn(self, name: str) -> bool:
        """One step of one operator; whether anything was done."""
        region, seen = self.all[name], self.seen_by(name)
        own = seen.own.copy
        if own and own.deleting:
            region.tombstone = tombstone_of(SERVICE, own, seen)
            region.manifest = None
            return True
        step = next_step(seen)
        if isinstance(step, Bring):
            if region.manifest is None:
                region.create(step.source.spec["content"], step.stamp)
            else:
                region.edit(step.source.spec["content"])
                region.stamped(step.stamp)
        elif isinstance(step, Renew):
            region.stamped(step.stamp)
        elif isinstance(step, Remove):
            region.delete()
        if step and (said := explain(step)):
            region.lost.append(said[1])
        wanted = next_tombstone(self.seen_by(name))
        changed = wanted != region.tombstone
        region.tombstone = wanted
        return bool(step) or changed

    def settle(self) -> None:
        for _ in range(50):
            done = [self.turn(name) for name in NAMES]
            if not any(done):
                return
        raise AssertionError("replication does not come to rest")

    def contents(self) -> list[str | None]:
        return [each.manifest["spec"]["content"] if each.manifest else None for each in self.all.values()]

    def versions(self) -> set[Version | None]:
        copies = [each.held().copy for each in self.all.values()]
        return {copy.version if copy else None for copy in copies}
