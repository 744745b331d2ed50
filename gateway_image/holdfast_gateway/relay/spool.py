"""What the relay writes of each stream for the ledger: one line, when the client has got all that it will get."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from holdfast.api.names import REVISION_HEADER, SERVICE_HEADER, TENANT_HEADER
from holdfast_gateway.relay.metrics import Outcome
from holdfast_gateway.render.values import RECORD_HEADER

log = logging.getLogger(__name__)
SPOOL_FILE = "relay.jsonl"
LONGEST_NAME = 256
REQUEST_ID = "x-request-id"


@dataclass
class Account:
    """What is known of one request so far. Times of the monotonic clock."""

    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    since: float = field(default_factory=time.monotonic)
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the request."""
    model: Any = None
    regions: list[str] = field(default_factory=list)
    """That gave a part of the answer, in turn."""
    revision: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    first_token: float | None = None
    resumed: int = 0
    attempts: int = 0
    status: int | None = None

    def answered(self, region: str | None, headers: list[tuple[str, str]]) -> None:
        """A region gave the client something."""
        if region is not None and region not in self.regions:
            self.regions.append(region)
        if self.revision is None:
            self.revision = dict(headers).get(REVISION_HEADER)

    def line(self, outcome: Outcome) -> bytes | None:
        """For the spool; None for a request that Envoy gave no id, as nobody keeps records of it."""
        if not (name := self.headers.get(RECORD_HEADER)):
            return None
        fields = {
            "attempts": self.attempts,  # sorted: every line of the spool begins with it
            "id": name,
            "latency_ms": milliseconds(time.monotonic() - self.since),
            "method": "POST",
            "model": self.model[:LONGEST_NAME] if isinstance(self.model, str) else None,
            "outcome": self._outcome(outcome),
            "path": self.path[:LONGEST_NAME],
            "region": self.regions[0] if self.regions else None,
            "regions": self.regions,
            "request_id": self.headers.get(REQUEST_ID, "")[:LONGEST_NAME],
            "resumed": self.resumed,
            "revision": self.revision,
            "service": self.headers.get(SERVICE_HEADER),
            "status": self.status,
            "stream": True,
            "tenant": self.headers.get(TENANT_HEADER),
            "time": self.began.isoformat(timespec="milliseconds"),
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "ttft_ms": None if self.first_token is None else milliseconds(self.first_token - self.since),
        }
        return json.dumps(fields, separators=(",", ":"), sort_keys=True).encode() + b"\n"

    def _outcome(self, outcome: Outcome) -> str:
        match outcome:
            case Outcome.COMPLETED | Outcome.CONTINUED:
                return "completed"
            case Outcome.REFUSED if self.status is None or self.status >= 500:
                return "failed"
            case _:
                return outcome.value


class Spool:
    """The relay's file in the ledger's folder, which the ledger may take away at any time."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / SPOOL_FILE
        self._lock = threading.Lock()
        self._torn = True
        """Whether the last line may lack its end: after an error, and when another process wrote before."""

    async def write(self, account: Account, outcome: Outcome) -> None:
        """Adds a line; where that fails, the ledger has Envoy's word alone. A slow disk holds no stream up."""
        if (line := account.line(outcome)) is not None:
            await asyncio.to_thread(self._append, line)

    def _append(self, line: bytes) -> None:
        try:
            with self._lock:
                # Opened each time: it costs microseconds, and what is found is never a file that was taken away.
                descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
                try:
                    data = b"\n" + line if self._torn else line
                    self._torn = True
                    self._torn = os.write(descriptor, data) != len(data)
                finally:
                    os.close(descriptor)
        except OSError as error:
            log.warning("what is known of a stream cannot be spooled: %s", error)


def milliseconds(seconds: float) -> int:
    """As records have it."""
    return round(seconds * 1000)
