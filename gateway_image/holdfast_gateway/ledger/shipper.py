"""Brings the spool's records to the sink: reads, joins, ships, remembers, makes room; over and over.

Nothing is read on before the sink has acknowledged what was read, and only then is it remembered as shipped: after a
crash at any point records may come twice, with the same id, and none is missing. The spool is turned and kept within
its size whatever the sink does.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from holdfast_gateway.ledger import checkpoint, segments
from holdfast_gateway.ledger.checkpoint import Checkpoint
from holdfast_gateway.ledger.follower import GRACE, Follower
from holdfast_gateway.ledger.metrics import LedgerMetrics, Loss
from holdfast_gateway.ledger.record import Record, Source
from holdfast_gateway.ledger.sinks.port import Sink, SinkUnavailable
from holdfast_gateway.ledger.tail import size

log = logging.getLogger(__name__)

SPOOL_MAX = 1024 * 1024 * 1024
BATCH = 500
BROKEN_FILE = "broken.jsonl"
BROKEN_MOST = 1024 * 1024
"""Bytes of broken lines that are kept for people to look at."""
Reopen = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Settings:
    """Times in seconds, sizes in bytes."""

    directory: Path
    gateway: str
    """The name that this gateway gives itself in its records."""
    relay: str = ""
    """The relay's address and port; empty without one."""
    grace: float = GRACE
    spool_max: int = SPOOL_MAX
    lag_warning: float = 60.0

    @property
    def segment(self) -> int:
        """Size from which a file is turned."""
        return max(64 * 1024, min(self.spool_max // 16, 64 * 1024 * 1024))


class Shipper:
    """The only one that turns and removes files of its spool. `now` of `step` is a steady clock, in seconds."""

    def __init__(self, settings: Settings, sink: Sink, reopen: Reopen, clock: Callable[[], datetime]) -> None:
        self._settings = settings
        self._sink = sink
        self._reopen = reopen
        self._clock = clock
        known = checkpoint.read(settings.directory)
        self._follower = Follower(
            settings.directory, settings.gateway, settings.relay, settings.grace,
            from_start=True, positions=known.positions, held=known.held,
        )  # fmt: skip
        self._outbox: list[Record] = []
        self._remembered = known
        self._duplicates = 0
        self._warned = False
        self.metrics = LedgerMetrics(self.lag, self.spool_bytes)

    def lag(self) -> float:
        """Seconds since the end of the eldest request that was read and is not acknowledged; 0 without any."""
        waiting = [*self._outbox, *(entry.record for entry in self._follower.join.held)]
        if not waiting:
            return 0.0
        return max(0.0, (self._clock() - min(record.ended for record in waiting)).total_seconds())

    def spool_bytes(self) -> float:
        """Size of the spool."""
        directory = self._settings.directory
        return float(sum(size(path) for source in Source for path, _ in segments.listed(directory, source)))

    async def step(self, now: float) -> bool:
        """One round; whether there may be more to do at once. Raises SinkUnavailable, OSError; call it again after."""
        try:
            await self._make_room()
        except OSError as error:
            log.warning("the spool cannot be kept in order: %s", error)
        at_end = self._read(now) if not self._outbox else False
        await self._ship()
        self._remember()
        return not at_end

    async def finish(self, now: float) -> None:
        """The last rounds, when nobody writes any more. Raises as `step` does."""
        while await self.step(now):
            pass
        self._count(self._follower.flush())
        await self._ship()
        self._remember()

    async def _make_room(self) -> None:
        """Turns files that have become large, and drops the eldest ones beyond the spool's size."""
        directory = self._settings.directory
        for source in Source:
            if size(segments.current(directory, source)) >= self._settings.segment:
                segments.turn(directory, source)
        if segments.numbered(directory, Source.ENVOY) and not segments.current(directory, Source.ENVOY).exists():
            await self._reopen()
        total = self.spool_bytes()
        for path, source in self._finished():
            if total <= self._settings.spool_max:
                break
            total -= size(path)
            self._drop(path, source)

    def _finished(self) -> list[tuple[Path, Source]]:
        """Files that nobody writes any more, eldest first."""
        directory = self._settings.directory
        found = [(path, source) for source in Source for path, _ in segments.listed(directory, source)[:-1]]
        return sorted(found, key=lambda each: each[0].stat().st_mtime)

    def _drop(self, path: Path, source: Source) -> None:
        tail = self._follower.tails[source]
        lost = tail.unread_lines(path)
        tail.leave(path)
        path.unlink()
        if lost:
            self.metrics.lost.labels(Loss.SPOOL_FULL.value).inc(lost)
            log.error("the spool is full: %d records of %s are lost", lost, path.name)

    def _read(self, now: float) -> bool:
        found = self._follower.read(now)
        self._count(found.records)
        for line in found.broken:
            self._keep_broken(line)
        return found.at_end

    def _count(self, records: list[Record]) -> None:
        for record in records:
            self.metrics.records.labels(record.outcome.value).inc()
        self._outbox += records
        self.metrics.duplicates.inc(self._follower.join.duplicates - self._duplicates)
        self._duplicates = self._follower.join.duplicates

    async def _ship(self) -> None:
        while self._outbox:
            batch = self._outbox[:BATCH]
            try:
                refused = await self._sink.write(batch)
            except SinkUnavailable:
                self.metrics.failures.inc()
                self._warn_of_lag()
                raise
            del self._outbox[: len(batch)]
            self.metrics.shipped.inc(len(batch) - len(refused))
            for record in refused:
                self.metrics.lost.labels(Loss.REFUSED.value).inc()
                log.error("the sink does not take record %s", record.id)
        self._warned = False

    def _warn_of_lag(self) -> None:
        lag = self.lag()
        if lag > self._settings.lag_warning and not self._warned:
            self._warned = True
            log.warning("records wait for %.0f s: the spool holds %.0f MiB", lag, self.spool_bytes() / 1024**2)

    def _remember(self) -> None:
        reached = Checkpoint(self._follower.positions(), tuple(self._follower.join.held))
        if reached == self._remembered:
            return
        try:
            reached.write(self._settings.directory)
            self._remembered = reached
        except OSError as error:
            # Perhaps the disk is full: what was shipped goes all the same, if nothing in it is still waited for.
            log.warning("what was shipped cannot be remembered, and may come twice: %s", error)
            if reached.held:
                return
        for path, source in self._finished():
            if self._follower.tails[source].is_done_with(path.stat().st_ino):
                path.unlink()

    def _keep_broken(self, line: bytes) -> None:
        self.metrics.lost.labels(Loss.BROKEN.value).inc()
        log.warning("a line of the spool is no record: %r", line[:120])
        kept = self._settings.directory / BROKEN_FILE
        try:
            if size(kept) + len(line) < BROKEN_MOST:
                with kept.open("ab") as file:
                    file.write(line + b"\n")
        except OSError as error:
            log.warning("%s cannot be written: %s", kept, error)
