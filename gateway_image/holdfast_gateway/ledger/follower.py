"""Reads the spool: lines of both writers, joined to records."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from holdfast_gateway.ledger import lines
from holdfast_gateway.ledger.join import Join
from holdfast_gateway.ledger.record import Entry, Record, Source, read
from holdfast_gateway.ledger.segments import Position
from holdfast_gateway.ledger.tail import Tail

log = logging.getLogger(__name__)
GRACE = 5.0
"""Seconds that a line of Envoy waits for the relay's of the same stream, and the other way round."""


@dataclass
class Pass:
    """What was found at one look."""

    records: list[Record] = field(default_factory=list)
    broken: list[bytes] = field(default_factory=list)
    """Lines that are no records: of a writer that died within one, or of nobody who should write there."""
    at_end: bool = True
    """Whether that was all."""


class Follower:
    """Follows the records of requests as they end, in any process that can read the spool's folder.

    `Follower(folder, gateway, relay)` gives those from now on: call `read()` as often as you like, such as each 100 ms;
    it returns at once. Each record comes once. It changes nothing in the folder, asks nobody, and may fall behind: what
    the shipper has removed meanwhile is left out. A stream that passed the relay comes when both lines are there or
    `grace` seconds are over; every other request when Envoy has written it, some 200 ms after its end.

    `relay` is the relay's address and port as Envoy names it (`127.0.0.1:9904`), empty without one. `positions` and
    `held` are what an earlier one had come to; without them and with `from_start`, all that is there is read.
    """

    def __init__(
        self,
        directory: Path,
        gateway: str = "",
        relay: str = "",
        grace: float = GRACE,
        *,
        from_start: bool = False,
        positions: dict[Source, Position] | None = None,
        held: tuple[Entry, ...] = (),
    ) -> None:
        self._gateway = gateway
        self._relay = relay
        self.tails = {source: Tail(directory, source, (positions or {}).get(source)) for source in Source}
        self.join = Join(grace, held)
        if not from_start and positions is None:
            for tail in self.tails.values():
                tail.to_end()

    def read(self, now: float) -> Pass:
        """What was written since the last time, at most some megabytes; `now` in seconds. Raises OSError."""
        found = Pass()
        for source, tail in self.tails.items():
            texts, at_end = tail.read()
            found.at_end &= at_end
            for text in texts:
                self._take(source, text, found)
        if found.at_end:
            found.records += self.join.expire(now)
        return found

    def flush(self) -> list[Record]:
        """The records that wait for another line, when none will be written any more."""
        return self.join.flush()

    def positions(self) -> dict[Source, Position]:
        """Up to where the files were read."""
        found = {source: tail.position for source, tail in self.tails.items()}
        return {source: position for source, position in found.items() if position is not None}

    def _take(self, source: Source, text: bytes, found: Pass) -> None:
        parsed = lines.parse(text)
        found.broken += parsed.broken
        for fields in parsed.good:
            try:
                entry = read(source, fields, self._gateway, self._relay)
            except ValueError:
                found.broken.append(text)
                continue
            found.records += self.join.add(entry)
