"""A region's API server as the simulation sees it: a few objects, each with a resource version.

Every write that names a version fails if the object has another one by then; with `careless` the server does not look.
A write answers None if it was refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from holdfast.api.llmservice import ActedPlan
from holdfast.api.names import STAMP_ANNOTATION
from holdfast.api.region import Tombstone
from holdfast.api.regionplan import RegionPlan, RegionPlanSpec
from holdfast.domain.copies import Copy, Stamp, read_copy
from holdfast.domain.failover import Order
from holdfast.domain.health import Watching
from holdfast.domain.leadership import Lease, LeaseWrite

SERVICE = "default/chat"


@dataclass(frozen=True)
class Edit:
    """One thing that a person did to the service; a copy's chain of them is the truth that no operator sees."""

    number: int
    region: str
    life: int
    """The creation that it goes back to."""
    content: str
    """Digest of the spec after it."""


Chain = tuple[Edit, ...]


@dataclass(frozen=True)
class StoredCopy:
    """An `LLMService` object."""

    uid: str
    generation: int
    spec: Mapping[str, Any]
    stamp: Stamp | None
    chain: Chain
    version: int
    deleting: bool = False

    def manifest(self) -> dict[str, Any]:
        """As an API server gives it out."""
        meta: dict[str, Any] = {"uid": self.uid, "generation": self.generation, "resourceVersion": str(self.version)}
        if self.stamp:
            meta["annotations"] = {STAMP_ANNOTATION: self.stamp.model_dump_json()}
        if self.deleting:
            meta["deletionTimestamp"] = "2026-01-01T12:00:00Z"
        return {"metadata": meta, "spec": self.spec}


@dataclass(frozen=True)
class StoredPlan:
    """A `RegionPlan` object."""

    spec: RegionPlanSpec
    version: int
    generation: int
    sealed: int
    """The epoch of the region's Lease when it was written: what the fence is judged by."""

    def read(self) -> RegionPlan:
        """As an operator reads it."""
        return RegionPlan(
            namespace="default",
            name="chat",
            resource_version=str(self.version),
            generation=self.generation,
            spec=self.spec,
        )


@dataclass(frozen=True)
class Snapshot:
    """All that a reader of the server sees, Lease and acted plan aside."""

    copy: Copy | None
    chain: Chain
    tombstone: Tombstone | None
    status_version: int
    heartbeat: str
    views: Mapping[str, Watching]
    orders: Mapping[str, Order]
    plan: RegionPlan | None


@dataclass
class Server:
    """One API server and all that it stores."""

    name: str
    careless: bool = False
    up: bool = True
    clock: int = 0
    """The last resource version that was handed out."""
    lease: Lease = field(default_factory=Lease)
    lease_version: int = 0
    copy: StoredCopy | None = None
    plan: StoredPlan | None = None
    acted: ActedPlan | None = None
    tombstone: Tombstone | None = None
    status_version: int = 0
    heartbeat: str = ""
    views: Mapping[str, Watching] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    majority_digest: str = ""
    _seen: tuple[object, str, Copy] | None = None

    def next_version(self) -> int:
        self.clock += 1
        return self.clock

    def read(self) -> Snapshot:
        copy = self.read_copy()
        return Snapshot(
            copy,
            self.copy.chain if self.copy else (),
            self.tombstone,
            self.status_version,
            self.heartbeat,
            self.views,
            dict(self.orders),
            self.plan.read() if self.plan else None,
        )

    def read_copy(self) -> Copy | None:
        if self.copy is None:
            return None
        if self._seen is None or self._seen[0] is not self.copy or self._seen[1] != self.majority_digest:
            seen = read_copy(self.name, self.copy.manifest(), self.majority_digest)
            self._seen = (self.copy, self.majority_digest, seen)
        return self._seen[2]

    def write_lease(self, write: LeaseWrite) -> str | None:
        current = str(self.lease_version) if self.lease_version else ""
        if write.version != current and not self.careless:
            return None
        self.lease, self.lease_version = write.lease, self.next_version()
        return str(self.lease_version)

    def write_plan(self, spec: RegionPlanSpec, version: int) -> bool:
        """Write the plan over the one of this version; 0 if there was none. It goes with the copy that owns it."""
        current = self.plan.version if self.plan else 0
        if self.copy is None or (version != current and not self.careless):
            return False
        generation = self.plan.generation + 1 if self.plan else 1
        self.plan = StoredPlan(spec, self.next_version(), generation, self.lease.epoch)
        return True

    def write_acted(self, acted: ActedPlan, before: ActedPlan | None, uid: str) -> bool:
        if self.copy is None or self.copy.uid != uid or self.acted != before:
            return False
        self.acted = acted
        return True

    def create(self, spec: Mapping[str, Any], stamp: Stamp | None, chain: Chain) -> bool:
        if self.copy is not None:
            return False
        version = self.next_version()
        self.copy = StoredCopy(f"{self.name}-{version}", 1, spec, stamp, chain, version)
        return True

    def update(self, spec: Mapping[str, Any], stamp: Stamp | None, chain: Chain, version: str | None) -> bool:
        """Write spec and stamp; without a version whatever is there (a person's edit)."""
        old = self.copy
        if old is None or (version is not None and str(old.version) != version and not self.careless):
            return False
        generation = old.generation + (old.spec != spec)
        self.copy = replace(
            old, spec=spec, stamp=stamp, chain=chain, generation=generation, version=self.next_version()
        )
        return True

    def delete(self, version: str | None) -> bool:
        """Mark the copy; it goes when its operator lets it."""
        if self.copy is None or (version is not None and str(self.copy.version) != version and not self.careless):
            return False
        if not self.copy.deleting:
            self.copy = replace(
                self.copy, deleting=True, generation=self.copy.generation + 1, version=self.next_version()
            )
        return True

    def let_go(self, uid: str) -> bool:
        """The copy's finalizer is taken off; what it owns goes with it."""
        if self.copy is None or self.copy.uid != uid or not self.copy.deleting:
            return False
        self.copy, self.plan, self.acted, self.majority_digest = None, None, None, ""
        return True

    def write_tombstone(self, tombstone: Tombstone | None, version: int) -> int | None:
        if version != self.status_version and not self.careless:
            return None
        self.tombstone, self.status_version = tombstone, self.next_version()
        return self.status_version
