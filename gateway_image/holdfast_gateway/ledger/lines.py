"""Lines out of files that are written while they are read, by writers that may die in the middle of one. Pure.

A writer that starts again goes on behind the half line of its forerunner, and both look like one. Every line of the
spool begins with the same characters, which cannot stand inside a line, as quotes are escaped there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

BEGIN = b'{"attempts":'
_BEGIN = re.compile(re.escape(BEGIN))
LONGEST = 1024 * 1024
"""Bytes of a line; whatever is longer is broken."""


@dataclass(frozen=True)
class Parsed:
    """What a line holds."""

    good: list[Any]
    """JSON values: one, or none, or of a line that is several, all that are whole."""
    broken: list[bytes]


def parse(line: bytes) -> Parsed:
    """Reads one line, without its end."""
    if not line.strip(b"\r\n\0 "):
        return Parsed([], [])
    starts = [found.start() for found in _BEGIN.finditer(line)] or [0]
    if starts[0] != 0:
        starts.insert(0, 0)
    parts = [line[start:end] for start, end in zip(starts, [*starts[1:], len(line)], strict=True)]
    good, broken = [], []
    for part in parts:
        try:
            good.append(json.loads(part))
        except (ValueError, RecursionError):
            broken.append(part)
    return Parsed(good, broken)


def split(data: bytes, final: bool) -> tuple[list[bytes], int]:
    """Complete lines, and how many bytes they are; if the file is `final`, its last line is complete as it is."""
    end = len(data) if final else data.rfind(b"\n") + 1
    if not end and len(data) >= LONGEST:
        end = len(data)
    return data[:end].split(b"\n"), end
