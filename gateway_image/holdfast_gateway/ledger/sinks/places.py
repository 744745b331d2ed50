"""Which kind of place an address means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from holdfast_gateway.ledger.record import Record
from holdfast_gateway.ledger.sinks.file import FileSink
from holdfast_gateway.ledger.sinks.port import Sink

KINDS = "file:///FOLDER, nats://HOST:4222/STREAM?subject=SUBJECT, or none: to keep no records"


class Nowhere:
    """Keeps nothing: for gateways whose spool only others on the machine follow."""

    async def write(self, records: Sequence[Record]) -> list[Record]:  # noqa: ARG002
        """See `Sink`."""
        return []

    async def close(self) -> None:
        """See `Sink`."""


def sink(address: str, gateway: str) -> Sink:
    """The sink at an address. Raises ValueError."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        return FileSink(folder(address), gateway)
    if parts.scheme in ("nats", "tls"):
        from holdfast_gateway.ledger.sinks.nats import NatsSink  # nats-py: for these alone

        return NatsSink(address)
    if address == "none:":
        return Nowhere()
    raise ValueError(f"{address!r} is no place for records: give {KINDS}")


def folder(address: str) -> Path:
    """The folder of a file sink's address. Raises ValueError."""
    parts = urlsplit(address)
    if parts.netloc or not parts.path.startswith("/"):
        raise ValueError(f"{address!r} must name an absolute folder: file:///var/lib/usage")
    return Path(unquote(parts.path))
