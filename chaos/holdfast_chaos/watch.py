"""Shows how a running load goes: on a terminal one line that changes, elsewhere a line every few seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.status import Status

from .records import Record, RequestRecord, StreamOutcome, StreamRecord

EVERY_SECONDS = 5.0
LIVE_SECONDS = 0.5


class LoadWatch:
    """Called with the elapsed seconds; a context manager, because a terminal's line must be cleared."""

    def __init__(self, console: Console, records: Sequence[Record], seconds: float) -> None:
        self._console = console
        self._records = records
        self._seconds = seconds
        self._next = 0.0
        self._seen = 0
        self._ok = self._failed = self._cut = 0
        self._status = Status("load", console=console) if console.is_terminal else None

    def __enter__(self) -> LoadWatch:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def __call__(self, elapsed: float) -> None:
        """Show the state if it is time."""
        if elapsed < self._next:
            return
        self._next = elapsed + (LIVE_SECONDS if self._status else EVERY_SECONDS)
        line = self._line(elapsed)
        if self._status:
            self._status.update(line)
        else:
            self.say(line)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _line(self, elapsed: float) -> str:
        """Totals, and who answered since the line before."""
        fresh = self._records[self._seen :]
        self._seen += len(fresh)
        lately: Counter[str] = Counter()
        for record in fresh:
            if isinstance(record, RequestRecord):
                lately[record.region] += record.ok
                self._ok += record.ok
                self._failed += not record.ok
            elif isinstance(record, StreamRecord):
                self._cut += record.outcome is not StreamOutcome.COMPLETED
        stage = "waiting for the last answers" if elapsed > self._seconds else f"of {self._seconds:.0f} s"
        counts = f"{self._ok:,} requests ok, {self._failed:,} failed; {self._cut} streams cut"
        regions = ", ".join(f"{name} {count}" for name, count in sorted(lately.items()) if name and count)
        return f"{elapsed:5.1f} s {stage}: {counts}" + (f"; lately {regions}" if regions else "")
