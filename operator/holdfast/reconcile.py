"""One pass over one service: observe, decide, apply, report. All of the operator's flow, and nothing else."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.adapters import metrics
from holdfast.adapters.apply import apply
from holdfast.adapters.cluster import Cluster
from holdfast.adapters.observe import SpecUnreadable, Watched, Written, gather, now, parse_status
from holdfast.api.conditions import Condition
from holdfast.api.llmservice import LLMServiceStatus
from holdfast.config import Config
from holdfast.domain.decide import decide
from holdfast.domain.observation import Capabilities, Manifest, Ref
from holdfast.domain.status import status, transitions, unreadable
from holdfast.errors import ClusterError, NotFound

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0


@dataclass
class Reconciler:
    """Keeps one service as its spec says; it remembers only its own last writes."""

    cluster: Cluster
    config: Config
    capabilities: Capabilities
    announce: Callable[[Condition], None]
    """Called once for each condition that changed."""
    written: Written = field(default_factory=Written)
    failed_in_a_row: int = 0

    async def reconcile(self, watched: Watched) -> float:
        """One pass; never raises on a cluster's failure. Returns the seconds until the next is due at the latest."""
        started = time.monotonic()
        try:
            failures = await self._pass(watched)
        except ClusterError as error:
            failures = [str(error)]
        metrics.record_reconcile("failed" if failures else "ok", time.monotonic() - started)
        if not failures:
            self.failed_in_a_row = 0
            return self.config.resync_seconds
        for failure in failures:
            log.warning("%s", failure)
        self.failed_in_a_row += 1
        return min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** (self.failed_in_a_row - 1))

    async def _pass(self, watched: Watched) -> list[str]:
        try:
            seen = gather(watched, self.written, self.config, self.capabilities)
        except SpecUnreadable as error:
            service = self.written.newest(watched.service)
            generation = service["metadata"]["generation"]
            await self._report(service, unreadable(parse_status(service), generation, str(error), now()))
            return []
        decision = decide(seen)
        failures = await apply(self.cluster, seen, decision.changes, self.written)
        await self._report(watched.service, status(seen, decision, failures))
        return failures

    async def _report(self, service: Manifest, after: LLMServiceStatus) -> None:
        """Write the status if it differs from the last one, and announce what changed."""
        ref = Ref.of(service)
        before = parse_status(self.written.newest(service))
        metrics.record_status(ref.namespace, ref.name, after)
        if after == before:
            return
        try:
            self.written.objects[ref] = await self.cluster.patch_status(ref, after.wire())
        except NotFound:
            return  # deleted meanwhile
        metrics.WRITES.labels("LLMServiceStatus").inc()
        for condition in transitions(before.conditions, after.conditions):
            self.announce(condition)
