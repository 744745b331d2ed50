"""Carries out decided changes: the only place that writes a service's children."""

from __future__ import annotations

import logging

from holdfast.adapters import metrics
from holdfast.adapters.cluster import Cluster
from holdfast.adapters.observe import Written
from holdfast.domain.changes import Apply, Change
from holdfast.domain.observation import Observation
from holdfast.errors import ClusterError

log = logging.getLogger(__name__)


async def apply(cluster: Cluster, seen: Observation, changes: tuple[Change, ...], written: Written) -> list[str]:
    """Write every change. One that fails does not stop the others; the answer is a sentence for each failure."""
    failures = []
    for change in changes:
        ref = change.ref
        try:
            if isinstance(change, Apply):
                written.objects[ref] = await cluster.apply(change.manifest)
                log.info(
                    "%s %s %s/%s",
                    "created" if change.created else "updated",
                    ref.kind,
                    ref.namespace,
                    ref.name,
                )
            else:
                await cluster.delete(seen.children[ref]["apiVersion"], ref)
                written.objects.pop(ref, None)
                log.info("deleted %s %s/%s", ref.kind, ref.namespace, ref.name)
            metrics.WRITES.labels(ref.kind).inc()
        except ClusterError as error:
            failures.append(f"{ref.kind} {ref.name} could not be written: {error}.")
    return failures
