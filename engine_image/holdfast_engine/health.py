"""Whether the engine is ready and alive, and how a stalled loop is noticed. Pure: time is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why the engine is not ready; the order is the order of precedence."""

    FAILED = "failed"
    DRAINING = "draining"
    LOADING = "loading"
    STALLED = "stalled"


@dataclass
class Health:
    """The facts. `failure` says why the generation loop is over."""

    loaded: bool = False
    draining: bool = False
    stalled: bool = False
    failure: str | None = None

    def not_ready(self) -> Reason | None:
        """Why no request is to be routed here; None when ready."""
        facts = {
            Reason.FAILED: self.failure is not None,
            Reason.DRAINING: self.draining,
            Reason.LOADING: not self.loaded,
            Reason.STALLED: self.stalled,
        }
        return next((reason for reason, holds in facts.items() if holds), None)

    def not_alive(self) -> Reason | None:
        """Why the process cannot make progress and should be restarted; None while it can."""
        if self.failure is not None:
            return Reason.FAILED
        return Reason.STALLED if self.stalled else None


class ProgressWatch:
    """Notices that requests run and no step completes for `timeout` seconds.

    Counts only time in which this process was itself running: a pause of the whole container (freeze, thaw)
    arrives here as one long tick, of which no more than `longest_tick` counts.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._longest_tick = 2 * self.interval
        self._silent = 0.0

    @property
    def interval(self) -> float:
        """Seconds between ticks that suit the timeout."""
        return self._timeout / 10

    def progress(self) -> None:
        """A step completed, or the first request came to an idle loop."""
        self._silent = 0.0

    def tick(self, elapsed: float) -> bool:
        """`elapsed` seconds passed since the last tick while requests ran: is the loop stalled?"""
        self._silent += min(elapsed, self._longest_tick)
        return self._silent >= self._timeout
