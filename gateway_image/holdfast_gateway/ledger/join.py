"""Makes one record out of the lines that Envoy and the relay write of the same request. Pure: time is a value.

Envoy writes of every request, the relay of every stream that passed it. Who comes first waits for the other; once
everything written has been read, it waits no longer than `grace`: then the other has died, and it goes alone. What
comes after that, or twice, is a duplicate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from holdfast_gateway.ledger.record import Entry, Record, Source, merged

REMEMBERED = 100_000
"""Ids of records that have gone, to know a late line as a duplicate."""


@dataclass
class Held:
    """A line that waits."""

    entry: Entry
    since: float | None = None
    """From when everything that the other could have written before was read; None: it may lie unread."""


class Join:
    """The lines that wait for another; `grace` in seconds."""

    def __init__(self, grace: float, held: Iterable[Entry] = ()) -> None:
        self.duplicates = 0
        self._grace = grace
        self._held = {entry.record.id: Held(entry) for entry in held}
        self._gone: OrderedDict[str, None] = OrderedDict()

    @property
    def held(self) -> list[Entry]:
        """The lines that wait, eldest first."""
        return [each.entry for each in self._held.values()]

    def add(self, entry: Entry) -> list[Record]:
        """Takes a line; what need not wait."""
        name = entry.record.id
        other = self._held.get(name)
        if name in self._gone or (other is not None and other.entry.source is entry.source):
            self.duplicates += 1
            return []
        if entry.source is Source.ENVOY and not entry.via_relay:
            # Envoy went past the relay: whatever that says of the request, the client got another answer.
            self.duplicates += other is not None
            return self._go(entry.record)
        if other is None:
            self._held[name] = Held(entry)
            return []
        pair = {each.source: each.record for each in (entry, other.entry)}
        return self._go(merged(pair[Source.ENVOY], pair[Source.RELAY]))

    def expire(self, now: float) -> list[Record]:
        """What need not wait any more; to be called when all that was written has been read."""
        for each in self._held.values():
            if each.since is None:
                each.since = now
        return self._alone([each for each in self._held.values() if now - (each.since or 0.0) >= self._grace])

    def flush(self) -> list[Record]:
        """All that waits, as nobody will write any more."""
        return self._alone(list(self._held.values()))

    def _alone(self, waiting: list[Held]) -> list[Record]:
        return [record for each in waiting for record in self._go(each.entry.record)]

    def _go(self, record: Record) -> list[Record]:
        self._held.pop(record.id, None)
        self._gone[record.id] = None
        if len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)
        return [record]
