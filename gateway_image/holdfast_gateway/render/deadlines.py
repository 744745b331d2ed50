"""A client's own time limit: engines get it, but never a longer one than their service allows.

Envoy's routes compare no decimal numbers, so the comparison is a pattern.
"""

from __future__ import annotations

from holdfast.api.names import TIMEOUT_HEADER
from holdfast.api.route import Route
from holdfast_gateway.render.values import Document

NUMBER = r"[0-9]{1,9}(\.[0-9]{1,9})?"


def unreadable() -> Document:
    """Matches requests whose limit is no number."""
    return {"name": TIMEOUT_HEADER, "string_match": {"safe_regex": {"regex": NUMBER}}, "invert_match": True}


def given() -> Document:
    """Matches requests with a limit."""
    return {"name": TIMEOUT_HEADER, "present_match": True}


def too_long(route: Route) -> list[Document]:
    """Matches requests with a longer limit than the service's own."""
    pattern = at_most(longest(route))
    return [given(), {"name": TIMEOUT_HEADER, "string_match": {"safe_regex": {"regex": pattern}}, "invert_match": True}]


def longest(route: Route) -> int:
    """The service's own limit for an answer, in whole seconds."""
    return max(1, int(route.max_stream.total_seconds()))


def at_most(limit: int) -> str:
    """A pattern of the numbers, with or without decimals, that are not above `limit`."""
    digits = str(limit)
    below = [rf"[0-9]{{1,{len(digits) - 1}}}"] if len(digits) > 1 else []
    for place, digit in enumerate(digits):
        if digit != "0":
            rest = len(digits) - place - 1
            below.append(f"{digits[:place]}[0-{int(digit) - 1}]" + (f"[0-9]{{{rest}}}" if rest else ""))
    return rf"0*(({'|'.join(below)})(\.[0-9]+)?|{digits}(\.0+)?)"
