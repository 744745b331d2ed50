"""Runs the shipper: its rounds, its port for the kubelet and Prometheus, signals, the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from dataclasses import dataclass

import aiohttp

from holdfast_gateway import health_port
from holdfast_gateway.ledger.shipper import Settings, Shipper
from holdfast_gateway.ledger.sinks.file import utc_now
from holdfast_gateway.ledger.sinks.places import sink
from holdfast_gateway.ledger.sinks.port import SinkUnavailable

log = logging.getLogger(__name__)

POLL = 0.2
RETRY_FIRST, RETRY_MOST = 0.25, 5.0
"""Seconds between two attempts at a sink that takes nothing: doubled each time."""
LAST_SECONDS = 10.0
"""For the sink to take what is left at the end; what it does not take stays in the spool."""
AFTER_ENVOY = 1.0
"""From Envoy's end until nobody writes: the relay may still do."""


@dataclass(frozen=True)
class ServeConfig:
    """Times in seconds."""

    settings: Settings
    sink: str
    admin_port: int
    """Envoy's admin interface: it is told when a file was turned, and as long as it answers there is more to come."""
    status_address: str
    status_port: int
    """`/healthz` and `/metrics`; 0 for none."""
    drain: float


class Worker:
    """One shipper and its rounds."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        self._admin = f"http://127.0.0.1:{config.admin_port}"
        self._sink = sink(config.sink, config.settings.gateway)
        self.shipper = Shipper(config.settings, self._sink, self._reopen, utc_now)
        self._pause = 0.0
        self._failing = False

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, and then until Envoy has ended, or for as long as it may take."""
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            await self._round()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._pause)
        until = loop.time() + self._config.drain
        while loop.time() < until and await self._envoy_lives():
            await self._round()
            await asyncio.sleep(max(POLL, self._pause))
        await asyncio.sleep(AFTER_ENVOY)
        await self._finish()

    async def _finish(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LAST_SECONDS):
                while True:
                    try:
                        await self.shipper.finish(loop.time())
                        log.info("all records have been shipped")
                        break
                    except (SinkUnavailable, OSError) as error:
                        self._told(error)
                        await asyncio.sleep(RETRY_FIRST)
        except TimeoutError:
            log.error("records stay in the spool, as the sink does not take them")
        await self._sink.close()

    async def _round(self) -> None:
        try:
            more = await self.shipper.step(asyncio.get_running_loop().time())
        except (SinkUnavailable, OSError) as error:
            self._told(error)
            self._pause = min(RETRY_MOST, max(RETRY_FIRST, self._pause * 2))
            return
        if self._failing:
            self._failing = False
            log.info("records are shipped again")
        self._pause = 0.0 if more else POLL

    def _told(self, error: Exception) -> None:
        if not self._failing:
            log.warning("records wait in the spool: %s", error)
        self._failing = True

    async def _reopen(self) -> None:
        """Tells Envoy that its file was turned. Asked again, should it not have heard."""
        try:
            timeout = aiohttp.ClientTimeout(total=2)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(f"{self._admin}/reopen_logs") as answer,
            ):
                answer.raise_for_status()
        except (aiohttp.ClientError, TimeoutError) as error:
            log.debug("Envoy was not told that its file was turned: %s", error)

    async def _envoy_lives(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._config.admin_port)
        except OSError:
            return False
        writer.close()
        return True


def serve(config: ServeConfig) -> None:
    """Ships until SIGTERM or SIGINT, then as long as Envoy drains. Raises ValueError for a sink that is none."""
    asyncio.run(_serve(config))


async def _serve(config: ServeConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    worker = Worker(config)
    async with health_port.serving(worker.shipper.metrics.render, config.status_address, config.status_port):
        log.info("shipping %s to %s", config.settings.directory, config.sink.rpartition("@")[2])
        await worker.run(stop)
