"""Shows the other regions that this observer lives, and notices whether theirs do.

Each operator renews a Lease of its own in its own cluster, and looks at those of the others. An observer is heard as
long as its Lease was seen to change lately, by the own clock: what a dead observer said last must not count forever.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from holdfast.adapters.cluster import Cluster
from holdfast.adapters.election import LEASES
from holdfast.api import names
from holdfast.domain.observation import Ref
from holdfast.errors import ClusterError, NotFound

log = logging.getLogger(__name__)

PERIOD_SECONDS = 3.0
SILENT_SECONDS = 15.0
"""An observer whose Lease was not seen to change for longer is not heard."""


@dataclass
class Heartbeats:
    """The observers' Leases."""

    namespace: str
    heard_at: dict[str, float] = field(default_factory=dict)
    """Region → when its observer's Lease was last seen to change (own monotonic clock)."""
    _versions: dict[str, str] = field(default_factory=dict)

    def heard(self) -> set[str]:
        """The regions whose observers live."""
        now = time.monotonic()
        return {region for region, at in self.heard_at.items() if now - at < SILENT_SECONDS}

    async def run(self, clusters: Callable[[], Mapping[str, Cluster]], own: str) -> None:
        """Renew and look until cancelled."""
        while True:
            known = clusters()
            if known:
                await asyncio.gather(*(self._turn(name, each, name == own) for name, each in known.items()))
            await asyncio.sleep(PERIOD_SECONDS)

    async def _turn(self, region: str, cluster: Cluster, own: bool) -> None:
        try:
            found = await self._renew(cluster) if own else await cluster.get(LEASES, self._ref(), 2.0)
            version = str(found["metadata"]["resourceVersion"])
        except (ClusterError, KeyError, TypeError) as error:
            log.debug("the observer of %s is not heard: %s", region, error)
            self._versions.pop(region, None)  # a change while nobody looked says nothing about now
            return
        # The first sight proves nothing: it may have stood there for days. The own one is proof of itself.
        if own or self._versions.get(region, version) != version:
            self.heard_at[region] = time.monotonic()
        self._versions[region] = version

    async def _renew(self, cluster: Cluster) -> dict[str, Any]:
        try:
            before = await cluster.get(LEASES, self._ref(), 2.0)
        except NotFound:
            return await cluster.create(self._manifest({}), 2.0)
        return await cluster.replace(self._manifest(before["metadata"]), 2.0)

    def _manifest(self, meta: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: value for key, value in meta.items() if key != "managedFields"}
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {
            "apiVersion": LEASES,
            "kind": "Lease",
            "metadata": {**kept, "name": names.OBSERVER_LEASE, "namespace": self.namespace},
            "spec": {"renewTime": now, "leaseDurationSeconds": round(SILENT_SECONDS)},
        }

    def _ref(self) -> Ref:
        return Ref("Lease", self.namespace, names.OBSERVER_LEASE)
