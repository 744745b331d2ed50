"""Says how far a long reading of bytes has come: `verifying: 512 of 2048 MiB, 25 %, 830.5 MiB/s`."""

from __future__ import annotations

import time
from collections.abc import Callable

Say = Callable[[str], None]
MIB = 1 << 20
INTERVAL = 5.0


class Progress:
    """Counts bytes up to `total` and says so at most every `interval` seconds; `already` were there before."""

    def __init__(
        self,
        doing: str,
        total: int,
        say: Say,
        *,
        already: int = 0,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._doing, self._total, self._say = doing, total, say
        self._done = self._already = already
        self._interval, self._clock = interval, clock
        self._began = self._said = clock()

    def add(self, count: int) -> None:
        self._done += count
        now = self._clock()
        if now - self._said >= self._interval:
            self._said = now
            self._say(self._line(now))

    def end(self) -> None:
        """Say the last line."""
        self._say(self._line(self._clock()))

    def _line(self, now: float) -> str:
        percent = 100 * self._done // self._total if self._total else 100
        rate = (self._done - self._already) / MIB / max(now - self._began, 1e-9)
        return f"{self._doing}: {self._done / MIB:.0f} of {self._total / MIB:.0f} MiB, {percent} %, {rate:.1f} MiB/s"
