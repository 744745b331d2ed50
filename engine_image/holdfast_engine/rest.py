"""Whether the engine sleeps: after a time without requests it does, and the next request wakes it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from enum import StrEnum

logger = logging.getLogger(__name__)
LONGEST = 120.0
"""Seconds for an engine to fall asleep or to awake, with its weights to read; after that it is taken for dead."""


class State(StrEnum):
    AWAKE = "awake"
    FALLING_ASLEEP = "falling asleep"
    ASLEEP = "asleep"
    WAKING = "waking"


class Rest:
    """`tell(asleep)` asks the engine, which answers some time later (`done`), or never (`stuck`). `after` in seconds; 0
    = it never sleeps."""

    def __init__(self, after: float, tell: Callable[[bool], None], stuck: Callable[[str], None]) -> None:
        self.state = State.AWAKE
        self._after = after
        self._tell = tell
        self._stuck = stuck
        self._timer: asyncio.TimerHandle | None = None
        self._told_at = 0.0

    def idle(self) -> None:
        """There is nothing to do from now on."""
        if self._after and self.state is State.AWAKE:
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_later(self._after, self._fall_asleep)

    def awake(self) -> bool:
        """Whether the engine can be given requests now; if it sleeps, it is woken."""
        if self.state is State.AWAKE:
            self._stop_timer()
        elif self.state is State.ASLEEP:
            self._ask(State.WAKING)
        return self.state is State.AWAKE

    def done(self, asleep: bool, wanted: bool) -> None:
        """The engine fell asleep or awoke; `wanted` says whether requests are there for it."""
        self._stop_timer()
        logger.info("%s after %.3f s", "asleep" if asleep else "awake", time.monotonic() - self._told_at)
        self.state = State.ASLEEP if asleep else State.AWAKE
        if not wanted:
            self.idle()

    def _fall_asleep(self) -> None:
        self._ask(State.FALLING_ASLEEP)

    def _ask(self, state: State) -> None:
        self.state = state
        self._told_at = time.monotonic()
        message = f"The engine was {state} for {LONGEST:g} seconds."
        self._timer = asyncio.get_running_loop().call_later(LONGEST, self._stuck, message)
        self._tell(state is State.FALLING_ASLEEP)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
