"""A folder with a file of JSON lines for each day and gateway: `file:///var/lib/usage`.

A batch is on the disk when it is acknowledged. What is left of one that failed is cut off, or if that fails too becomes
a line that no reader takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from holdfast_gateway.ledger.record import Record
from holdfast_gateway.ledger.sinks.port import SinkUnavailable

PREFIX = "usage-"


def utc_now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


class FileSink:
    """Appends to `usage-DAY-GATEWAY.jsonl`, by the day (UTC) on which a record comes."""

    def __init__(self, directory: Path, gateway: str, now: Callable[[], datetime] = utc_now) -> None:
        self._directory = directory
        self._gateway = re.sub(r"[^A-Za-z0-9.-]+", "_", gateway) or "gateway"
        self._now = now

    async def write(self, records: Sequence[Record]) -> list[Record]:
        """See `Sink`."""
        path = self._directory / f"{PREFIX}{self._now():%Y-%m-%d}-{self._gateway}.jsonl"
        try:
            await asyncio.to_thread(append, path, b"".join(record.line() for record in records))
        except OSError as error:
            raise SinkUnavailable(f"{path} cannot be written: {error}") from error
        return []

    async def close(self) -> None:
        """See `Sink`."""


def append(path: Path, data: bytes) -> None:
    """Adds lines durably, all or none as far as that can be had. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        end = os.fstat(descriptor).st_size
        try:
            if end and os.pread(descriptor, 1, end - 1) != b"\n":
                data = b"\n" + data
            write_all(descriptor, data)
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)
    if new:
        sync_folder(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Writes everything; a disk that is nearly full takes a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
