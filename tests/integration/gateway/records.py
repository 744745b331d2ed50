"""Ledgers of a bed's gateways, and what they have brought to where records are kept."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.integration.gateway.bed import Bed, Gateway, wait_for
from tests.integration.gateway.processes import RELAY_PORT, Server, ledger

STATUS_PORT = 9909


@dataclass
class Kept:
    """Records that came to a folder."""

    folder: Path

    @property
    def sink(self) -> str:
        """Its address."""
        return f"file://{self.folder}"

    def all(self) -> list[Any]:
        """Every record as often as it came."""
        return [
            json.loads(line) for path in sorted(self.folder.glob("*.jsonl")) for line in path.read_text().splitlines()
        ]

    def of(self, request_id: str, count: int = 1) -> list[Any]:
        """The records of requests with that name, once there are so many."""

        def found() -> list[Any]:
            return [record for record in once(self.all()) if record["request_id"] == request_id]

        wait_for(lambda: len(found()) >= count, f"{count} records of {request_id}")
        return found()


def once(records: Iterable[Any]) -> list[Any]:
    """Of several with one id the first."""
    return list({record["id"]: record for record in reversed(list(records))}.values())[::-1]


def ships(gateway: Gateway, sink: str, *flags: str) -> Server:
    """Starts the ledger of a gateway."""
    made = ledger(
        gateway.directory, gateway.options.listen, gateway.options.admin_port, sink,
        *("--relay-port", str(RELAY_PORT if gateway.relay else 0), "--gateway-name", gateway.directory.name), *flags,
    )  # fmt: skip
    made.start()
    return made


def metric(gateway: Gateway, name: str) -> float:
    """A metric of a gateway's ledger; -1 while it does not answer."""
    try:
        text = httpx.get(f"http://{gateway.options.listen}:{STATUS_PORT}/metrics").text
    except httpx.TransportError:
        return -1.0
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def counts(records: Iterable[Any], key: str) -> Counter[Any]:
    """How many records there are of each."""
    return Counter(record[key] for record in records)


def stop_all(bed: Bed, servers: Iterable[Server]) -> None:
    """Ends the ledgers, then the bed."""
    for server in servers:
        server.kill()
    bed.stop()
