"""Notices when an engine with requests makes no progress, and when it goes on again."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Protocol

from holdfast_engine.health import Health, ProgressWatch

logger = logging.getLogger(__name__)


class Work(Protocol):
    """What the watchdog needs of `holdfast_engine.shim.Shim`."""

    def has_work(self) -> bool:
        """Whether the engine has requests that it has not let go of."""

    def stalled(self) -> None:
        """The engine makes no progress: whoever waits for it is told."""

    def ask_for_a_sign(self) -> None:
        """Give the engine a request of the shim's own."""


class Watchdog:
    """Judges while there is work; `timeout` in seconds."""

    def __init__(self, timeout: float, health: Health, work: Work) -> None:
        self._watch = ProgressWatch(timeout)
        self._health = health
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def begin(self, first: bool) -> None:
        """There is work from now on; `first`: until now there was none."""
        if first:
            self._watch.progress()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def progress(self) -> None:
        """The engine completed a step."""
        self._watch.progress()
        self._health.stalled = False

    async def _run(self) -> None:
        """An engine that let go of its requests has nothing left to show progress with: it is asked for one token."""
        last = time.monotonic()
        while (self._work.has_work() or self._health.stalled) and self._health.failure is None:
            await asyncio.sleep(self._watch.interval)
            now = time.monotonic()
            silent = self._watch.tick(now - last)
            if silent and self._work.has_work() and not self._health.stalled:
                logger.error("no generation step completed for too long")
                self._health.stalled = True
                self._work.stalled()
            elif self._health.stalled and not self._work.has_work():
                self._work.ask_for_a_sign()
            last = now
