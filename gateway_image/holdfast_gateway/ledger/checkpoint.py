"""What a shipper remembers over its own death: up to where the spool was read, and the lines that wait for another."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from holdfast_gateway import files
from holdfast_gateway.ledger.record import Entry, Source, loaded
from holdfast_gateway.ledger.segments import Position

log = logging.getLogger(__name__)
NAME = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    """All lines before these positions have been shipped, but for those that are held."""

    positions: dict[Source, Position]
    held: tuple[Entry, ...] = ()

    def write(self, directory: Path) -> None:
        """In place of the one before, at once and durably. Raises OSError."""
        content = {
            "positions": {source.value: asdict(position) for source, position in self.positions.items()},
            "held": [
                {"source": entry.source.value, "viaRelay": entry.via_relay, "record": asdict(entry.record)}
                for entry in self.held
            ],
        }
        files.replace(directory / NAME, json.dumps(content) + "\n")


def read(directory: Path) -> Checkpoint:
    """The last one. Without one, or one that can be read, all is read from the start: twice is better than never."""
    path = directory / NAME
    try:
        content = json.loads(path.read_text())
        positions = {Source(name): Position(**position) for name, position in content["positions"].items()}
        held = [
            Entry(Source(each["source"]), loaded(each["record"]), each["viaRelay"] is True) for each in content["held"]
        ]
    except FileNotFoundError:
        return Checkpoint({})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.error("%s cannot be used, and all that is spooled will be shipped again: %s", path, error)
        return Checkpoint({})
    return Checkpoint(positions, tuple(held))
