"""Plain columns for terminals, pipes and logs: no boxes, no colour of its own, at most `WIDTH` characters."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import timedelta

WIDTH = 120
GAP = "  "


def table(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "", fold: bool = False) -> list[str]:
    """Lines of a table; with `fold` the last column is folded into the room that is left, else nothing is."""
    whole = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(row[at]) for row in whole) for at in range(len(header))]
    lines = []
    for row in whole:
        start = indent + GAP.join(cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True))
        start += GAP if len(row) > 1 else ""
        room = max(24, WIDTH - len(start)) if fold else 10_000
        first, *more = textwrap.wrap(row[-1], room, break_on_hyphens=False) or [""]
        lines.append((start + first).rstrip())
        lines += [" " * len(start) + each for each in more]
    return lines


def paragraph(text: str, indent: str = "", hanging: str = "  ") -> list[str]:
    """A sentence, folded."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent + hanging, break_on_hyphens=False
    ) or [""]


def engines(replicas: int, warm: int) -> str:
    """`2`, or `2 + 1 warm`."""
    return f"{replicas} + {warm} warm" if warm else str(replicas)


def ago(since: timedelta) -> str:
    """`14s`, `3m`, `5h`, `2d`."""
    seconds = max(0, int(since.total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
