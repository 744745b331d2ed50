"""A watch over the processes beside Envoy, where no kubelet does that."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast_gateway.envoy import RESTART_FIRST, RESTART_MOST, die_with_parent

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Companion:
    """A process beside Envoy."""

    name: str
    """For logs."""
    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """What is added to this process's own."""


async def supervise(companion: Companion, stop: asyncio.Event) -> None:
    """Keeps it running; once `stop` is set, lets it finish."""
    environment = {**os.environ, **companion.environment}
    stopping = asyncio.create_task(stop.wait())
    pause = RESTART_FIRST
    while True:
        child = await asyncio.create_subprocess_exec(*companion.command, env=environment, preexec_fn=die_with_parent)
        death = asyncio.create_task(child.wait())
        try:
            await asyncio.wait({death, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if child.returncode is None and not stop.is_set():
                child.kill()  # cancelled: there is nobody left to work for
        if stop.is_set():
            if child.returncode is None:
                child.terminate()
            await death
            return
        pause = min(RESTART_MOST, pause * 2)
        log.error("the %s ended with %s, starting it again in %.1f s", companion.name, child.returncode, pause)
        await asyncio.wait({stopping}, timeout=pause)
