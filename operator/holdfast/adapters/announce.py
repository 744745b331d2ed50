"""Writes Kubernetes Events about objects outside of kopf's handlers. An event that cannot be written is only logged."""

from __future__ import annotations

import logging
import uuid
from datetime import UTC, datetime

from holdfast.adapters.cluster import Cluster
from holdfast.api.conditions import Reason
from holdfast.domain.observation import Manifest
from holdfast.errors import ClusterError

log = logging.getLogger(__name__)


async def announce(cluster: Cluster, about: Manifest, kind: str, reason: Reason, message: str) -> None:
    """One event of a kind (`Normal` or `Warning`); those about cluster-scoped objects stand in `default`."""
    meta = about["metadata"]
    namespace = meta.get("namespace", "default")
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name']}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": meta["name"],
            "namespace": meta.get("namespace"),
            "uid": meta.get("uid"),
        },
        "type": kind,
        "reason": str(reason),
        "message": message[:1000],
        "source": {"component": "holdfast"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    try:
        await cluster.create(event)
    except ClusterError as error:
        log.warning("an event could not be written: %s", error)
