"""Runs an engine behind its port: granian inside this process, signals, the drain before the end.

granian's network side is Rust and needs no Python to answer HTTP/2 pings; it speaks HTTP/1.1 and HTTP/2
without TLS (prior knowledge) on one port.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import grpc
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP2Settings
from granian.server.embed import Server

from holdfast.telemetry.options import tracing
from holdfast.telemetry.spans import Tracing
from holdfast_engine.app import build_app
from holdfast_engine.causes import Cause, CauseReason
from holdfast_engine.errors import UnavailableError
from holdfast_engine.kserve.front import Front
from holdfast_engine.kserve.servicer import start_grpc
from holdfast_engine.limits import Limits
from holdfast_engine.metrics import EngineMetrics
from holdfast_engine.port import Engine
from holdfast_engine.prepare import TERMINATION_LOG, leave_word
from holdfast_engine.shim import Shim
from holdfast_engine.tracing import TracedApp

logger = logging.getLogger(__name__)
SENDER = "holdfast-engine"
MAX_CONNECTIONS = 4096
"""Above any sensible number of gateways and probes: a probe must never wait for a connection."""
STREAMS_PER_CONNECTION = 1024
SHUTDOWN_SECONDS = 2.0
FLUSH_SECONDS = 0.2
"""For the last answers to reach their clients before HTTP/2's GOAWAY does: some clients drop what they read
together with it."""


@dataclass(frozen=True)
class ServeConfig:
    """Times in seconds."""

    served_name: str
    host: str = "0.0.0.0"
    port: int = 8000
    grpc_port: int = 8001
    """For KServe's protocol over gRPC; 0 = none."""
    progress_timeout: float = 4.0
    drain_seconds: float = 900.0
    limits: Limits = field(default_factory=Limits)
    sleep_after: float = 0.0
    termination_log: Path = TERMINATION_LOG
    """Where the cause of a bad end is left, if the file is there: the kubelet makes it and shows what it then holds."""
    otlp_endpoint: str = ""
    """Where spans are sent; empty for nowhere."""
    trace_sampling: float = 1.0
    """Percent of the traces that begin here."""


def serve(engine: Engine, config: ServeConfig) -> NoReturn:
    """Serve until SIGTERM or SIGINT, then drain and exit with 0; a second signal ends at once.

    Exits with the code that the engine gives when it is over, also before it began (a broken model): its supervisor
    starts it anew.
    """
    code = 1
    try:
        code = asyncio.run(_serve(engine, config))
    except Exception as error:
        logger.exception("the engine ended")
        leave_word(config.termination_log, str(Cause(CauseReason.FAILED, f"{type(error).__name__}: {error}")))
    finally:
        # Skips the interpreter's own end, in which granian's threads may still call into Python and abort.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


async def _serve(engine: Engine, config: ServeConfig) -> int:
    _refuse_taken_port(config.host, config.port)
    metrics = EngineMetrics(config.served_name)
    shim = Shim(engine, metrics, config.progress_timeout, config.limits, config.sleep_after)
    spans = tracing(config.otlp_endpoint, config.trace_sampling, SENDER, "", metrics.spans_dropped)
    server = Server(
        TracedApp(build_app(shim, metrics, config.served_name), config.served_name, spans),
        address=config.host,
        port=config.port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.auto,
        http2_settings=HTTP2Settings(max_concurrent_streams=STREAMS_PER_CONNECTION),
        websockets=False,
        backlog=MAX_CONNECTIONS,
        backpressure=MAX_CONNECTIONS,
        log_enabled=False,
    )
    stopping = asyncio.Event()
    _on_signals(shim, stopping)
    serving = asyncio.create_task(server.serve())
    rpc = await _serve_grpc(shim, config, spans)
    logger.info("listening on %s:%d, loading %s", config.host, config.port, config.served_name)
    await shim.start()
    ends = [serving, asyncio.create_task(stopping.wait()), asyncio.create_task(shim.ended.wait())]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        logger.error("the HTTP server ended: %s", serving.exception())
        await shim.engine.stop(at_once=True)
        return 1
    if not shim.ended.is_set():
        await _drain(shim, config.drain_seconds)
    await asyncio.sleep(FLUSH_SECONDS)
    server.stop()  # type: ignore[no-untyped-call]
    if rpc is not None:
        await rpc.stop(FLUSH_SECONDS)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(serving, SHUTDOWN_SECONDS)
    await asyncio.to_thread(spans.close)
    if shim.failed is not None and not stopping.is_set():
        await shim.engine.stop(at_once=True)
        logger.error("leaving: %s", shim.failed.cause)
        leave_word(config.termination_log, str(shim.failed.cause))
        return shim.failed.code
    await shim.engine.stop()
    logger.info("drained, leaving")
    return 0


async def _serve_grpc(shim: Shim, config: ServeConfig, spans: Tracing) -> grpc.aio.Server | None:
    if not config.grpc_port:
        return None
    return await start_grpc(Front(shim, config.served_name, spans), config.host, config.grpc_port)


def _refuse_taken_port(host: str, port: int) -> None:
    """Raise OSError when another process listens there: granian would silently share the port with it."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        attempt.bind(address)


def _on_signals(shim: Shim, stopping: asyncio.Event) -> None:
    ending: set[asyncio.Task[None]] = set()

    async def end_at_once() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(shim.engine.stop(at_once=True), SHUTDOWN_SECONDS)
        os._exit(128 + signal.SIGTERM)

    def stop() -> None:
        if stopping.is_set():
            logger.warning("asked to stop again: ending at once")
            ending.add(asyncio.create_task(end_at_once()))
            return
        logger.info("asked to stop: draining")
        shim.health.draining = True
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


async def _drain(shim: Shim, seconds: float) -> None:
    try:
        await asyncio.wait_for(shim.wait_idle(), seconds)
    except TimeoutError:
        logger.warning("drained for %g seconds: cutting the remaining requests", seconds)
        shim.fail_all(UnavailableError("The engine is shutting down.", code="draining"))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(shim.wait_idle(), SHUTDOWN_SECONDS)
