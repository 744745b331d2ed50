"""The spool's files: those that are written now, `envoy.jsonl` and `relay.jsonl`, and earlier ones with a number.

A file is turned by renaming it. Its writer goes on in it until it opens the name anew, which makes the next file: so
one of which there is a later one is written no more.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from holdfast_gateway.ledger.record import Source

HEAD_BYTES = 64
"""At a file's beginning: they hold an id, and tell it from another that was given the number of a deleted one."""


@dataclass(frozen=True)
class Position:
    """Up to where a file was read, in bytes."""

    inode: int
    offset: int
    head: int
    """A checksum of the file's beginning, as far as it was read."""


def current(directory: Path, source: Source) -> Path:
    """The file that is written now."""
    return directory / f"{source}.jsonl"


def numbered(directory: Path, source: Source) -> list[Path]:
    """The earlier ones, eldest first."""
    found = {path: path.name.split(".")[1] for path in directory.glob(f"{source}.*.jsonl")}
    return sorted((path for path, number in found.items() if number.isdigit()), key=lambda path: int(found[path]))


def listed(directory: Path, source: Source) -> list[tuple[Path, int]]:
    """All of them with their inodes, eldest first."""
    found = []
    for path in (*numbered(directory, source), current(directory, source)):
        try:
            found.append((path, path.stat().st_ino))
        except FileNotFoundError:
            continue
    # Between the two looks the last one may have been turned: it is the same file.
    return list({inode: (path, inode) for path, inode in found}.values())


def turn(directory: Path, source: Source) -> Path:
    """Gives the current file the next number. Raises OSError."""
    earlier = numbered(directory, source)
    number = int(earlier[-1].name.split(".")[1]) + 1 if earlier else 1
    turned = directory / f"{source}.{number:08d}.jsonl"
    return current(directory, source).rename(turned)


def head(descriptor_read: bytes) -> int:
    """The checksum of a file's beginning."""
    return zlib.crc32(descriptor_read)
