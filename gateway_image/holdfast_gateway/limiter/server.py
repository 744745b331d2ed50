"""Runs the limiter: its port for Envoy, its port for the kubelet and Prometheus, signals.

It never says no because it cannot count: where the store is away, requests pass.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from holdfast_gateway import health_port
from holdfast_gateway.ledger.follower import Follower
from holdfast_gateway.limiter.decide import answer
from holdfast_gateway.limiter.metrics import PASSED, UNCOUNTED, LimiterMetrics
from holdfast_gateway.limiter.protocol import ADMITTED, HEALTH_METHOD, METHOD, SERVING
from holdfast_gateway.limiter.store import Store, StoreAway, open_storage
from holdfast_gateway.limiter.tokens import TokenCount, count_tokens

log = logging.getLogger(__name__)
GRACE = 1.0
"""Seconds for the last answers when it stops."""


@dataclass(frozen=True)
class LimiterConfig:
    """Times in seconds."""

    address: str
    """HOST:PORT for Envoy."""
    store: str
    """`memory`, or a URL of Redis."""
    store_timeout: float
    status_address: str
    status_port: int
    """`/healthz` and `/metrics`; 0 for none."""
    spool: Path | None = None
    """The ledger's folder, where requests' tokens are found; None: they are not counted."""
    relay: str = ""
    """The relay's address and port; empty without one."""


class Limiter:
    """Answers Envoy's questions."""

    def __init__(self, store: Store, metrics: LimiterMetrics) -> None:
        self._store = store
        self._metrics = metrics
        self._complained = False

    async def should_rate_limit(self, request: bytes, context: Any) -> bytes:
        """One question."""
        with self._metrics.latency.time():
            try:
                response, over = await answer(request, self._store)
            except StoreAway as error:
                self._complain(f"requests pass uncounted: {error}")
                self._metrics.decisions.labels(UNCOUNTED).inc()
                return ADMITTED
            except ValueError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if self._complained:
            log.info("the store answers again")
            self._complained = False
        self._metrics.decisions.labels(over or PASSED).inc()
        return response

    async def check_health(self, _: bytes, __: Any) -> bytes:
        """It is well as long as it answers: without a store, too, there is nobody who could count better."""
        return SERVING

    def _complain(self, what: str) -> None:
        if not self._complained:
            log.error("%s", what)
        self._complained = True


async def serve(config: LimiterConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises ValueError for a store that is none, OSError for a port that is taken."""
    metrics = LimiterMetrics()
    store = Store(open_storage(config.store, config.store_timeout), config.store_timeout, time.monotonic, metrics)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((routes(Limiter(store, metrics)),))
    try:
        server.add_insecure_port(config.address)
    except RuntimeError as error:
        raise OSError(f"{config.address} cannot be listened on: {error}") from error
    # Before it answers: what ends from then on is counted.
    follower = Follower(config.spool, relay=config.relay) if config.spool else None
    await server.start()
    counting = None
    if follower is not None:
        counting = asyncio.create_task(count_tokens(follower, TokenCount(store, metrics, time.monotonic)))
    async with health_port.serving(metrics.render, config.status_address, config.status_port):
        log.info("listening on %s, counting in %s", config.address, config.store.partition(":")[0])
        stopping = asyncio.create_task(stop_signal())
        await asyncio.wait({stopping, counting} if counting else {stopping}, return_when=asyncio.FIRST_COMPLETED)
        if counting is not None and not counting.cancel():
            await counting  # it ended by itself: that is an error, and a restart counts again
        await server.stop(GRACE)


def routes(limiter: Limiter) -> Any:
    """The two methods by their paths, on bytes."""
    methods = {METHOD: limiter.should_rate_limit, HEALTH_METHOD: limiter.check_health}
    handlers = {path: grpc.unary_unary_rpc_method_handler(method) for path, method in methods.items()}

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> Any:
            return handlers.get(details.method)

    return Handler()


async def stop_signal() -> None:
    """Returns once the process is asked to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
