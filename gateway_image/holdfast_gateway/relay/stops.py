"""Where a stop string ends an answer, and where one may have begun. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def find(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Where to cut, and the stop string: the one that is complete first, of two that end together the longer."""
    found = [(at + len(stop), at, stop) for stop in stops if (at := text.find(stop)) >= 0]
    if not found:
        return None
    _, at, stop = min(found)
    return at, stop


def may_have_begun(text: str, stops: Sequence[str]) -> bool:
    """Whether the text ends in what a stop string begins with, so that what follows may complete it."""
    return any(
        stop.startswith(text[-length:]) for stop in stops for length in range(1, min(len(stop) - 1, len(text)) + 1)
    )
