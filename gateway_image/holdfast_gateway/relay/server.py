"""Runs the relay: its port for Envoy on loopback, its port for the kubelet and Prometheus, signals, the drain.

granian's network side is Rust: it answers Envoy's HTTP/2 pings also while Python is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP2Settings
from granian.server.embed import Server

from holdfast.telemetry.options import tracing
from holdfast_gateway import health_port
from holdfast_gateway.relay.app import Relay
from holdfast_gateway.relay.regions import Services
from holdfast_gateway.relay.search import Patience
from holdfast_gateway.relay.spool import Spool
from holdfast_gateway.relay.upstream import Upstream

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 4096
STREAMS_PER_CONNECTION = 1024
SEND_BUFFER_BYTES = 64 * 1024
"""What granian holds for one slow client."""
SHUTDOWN_SECONDS = 2.0
SENDER = "holdfast-relay"
FLUSH_SECONDS = 0.2
"""For the last bytes to reach Envoy before the connection's end does."""


@dataclass(frozen=True)
class ServeConfig:
    """Times in seconds, sizes in bytes."""

    directory: Path
    """Where the agent's files are."""
    address: str
    port: int
    outbound_port: int
    status_address: str
    status_port: int
    """`/healthz` and `/metrics`; 0 for none."""
    patience: Patience
    max_body: int
    drain: float = 900.0
    spool: Path | None = None
    """The ledger's folder."""
    otlp_endpoint: str = ""
    """Where spans are sent; empty for nowhere."""
    trace_sampling: float = 1.0
    """Percent of the traces that begin here."""
    resource_attributes: str = ""


def serve(config: ServeConfig) -> NoReturn:
    """Serves until SIGTERM or SIGINT, then finishes what runs and exits with 0; a second signal ends at once."""
    code = 1
    try:
        code = asyncio.run(_serve(config))
    except Exception:
        log.exception("the relay ended")
    finally:
        # Skips the interpreter's own end, in which granian's threads may still call into Python and abort.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


async def _serve(config: ServeConfig) -> int:
    _refuse_taken_port(config.address, config.port)
    async with Upstream(f"http://{config.address}:{config.outbound_port}") as upstream:
        spool = None if config.spool is None else Spool(config.spool)
        relay = Relay(upstream, Services(config.directory).get, config.patience, config.max_body, spool)
        relay.tracing = tracing(
            config.otlp_endpoint, config.trace_sampling, SENDER, config.resource_attributes, relay.metrics.spans_dropped
        )
        server = Server(
            relay,
            address=config.address,
            port=config.port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.auto,
            http2_settings=HTTP2Settings(
                max_concurrent_streams=STREAMS_PER_CONNECTION, max_send_buffer_size=SEND_BUFFER_BYTES
            ),
            websockets=False,
            backlog=MAX_CONNECTIONS,
            backpressure=MAX_CONNECTIONS,
            log_enabled=False,
        )
        stopping = _on_signals(relay)
        async with health_port.serving(relay.metrics.render, config.status_address, config.status_port):
            serving = asyncio.create_task(server.serve())
            log.info("listening on %s:%d", config.address, config.port)
            waiting = asyncio.create_task(stopping.wait())
            await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                log.error("the HTTP server ended: %s", serving.exception())
                return 1
            await _drain(relay, config.drain)
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.to_thread(relay.tracing.close)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(serving, SHUTDOWN_SECONDS)
    return 0


def _refuse_taken_port(host: str, port: int) -> None:
    """Raises OSError when another process listens there: granian would silently share the port with it."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        attempt.bind(address)


def _on_signals(relay: Relay) -> asyncio.Event:
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            os._exit(128 + signal.SIGTERM)
        log.info("asked to stop: %d streams run", len(relay.streams))
        relay.draining = True
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping


async def _drain(relay: Relay, seconds: float) -> None:
    try:
        await asyncio.wait_for(relay.idle.wait(), seconds)
    except TimeoutError:
        log.warning("drained for %g seconds: cutting %d streams", seconds, len(relay.streams))
    await asyncio.sleep(FLUSH_SECONDS)
