"""What a place where records are kept must do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from holdfast_gateway.ledger.record import Record


class SinkUnavailable(Exception):
    """The place took nothing, or it is not known what: the same records must be given again."""


class Sink(Protocol):
    """A place for records. Whoever reads there counts the first of several with one id."""

    async def write(self, records: Sequence[Record]) -> list[Record]:
        """Keeps all of these durably before it returns, and returns those that it will never take, such as too large
        ones. Raises SinkUnavailable, after which it may be called again."""
        ...

    async def close(self) -> None:
        """Gives back what it holds."""
        ...
