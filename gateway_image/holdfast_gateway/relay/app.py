"""The relay's port, as an ASGI application: streams, and `/ready/…` for Envoy's health checks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from holdfast.api.names import SERVICE_HEADER
from holdfast.telemetry.spans import OFF, Tracing
from holdfast_gateway.relay.client import (
    BodyTooLarge,
    Client,
    ClientLeft,
    Message,
    Receive,
    Request,
    Send,
    headers_of,
    leaves,
    read_request,
)
from holdfast_gateway.relay.events import error_event
from holdfast_gateway.relay.metrics import Outcome, RelayMetrics
from holdfast_gateway.relay.regions import Service
from holdfast_gateway.relay.search import Patience
from holdfast_gateway.relay.spool import Account, Spool
from holdfast_gateway.relay.stream import Stream
from holdfast_gateway.relay.tracing import StreamTrace
from holdfast_gateway.relay.upstream import Upstream

log = logging.getLogger(__name__)


@dataclass
class Relay:
    """All streams of one relay. `max_body` in bytes."""

    upstream: Upstream
    service: Callable[[str], Service | None]
    """A service by `namespace/name`."""
    patience: Patience
    max_body: int
    spool: Spool | None = None
    """Where what is known of each stream is written for the ledger."""
    tracing: Tracing = OFF
    draining: bool = False
    streams: set[Stream] = field(default_factory=set)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no stream runs."""
    _open: int = 0

    def __post_init__(self) -> None:
        self.metrics = RelayMetrics(lambda: self._open, self._buffered)
        self.idle.set()

    def _buffered(self) -> int:
        return sum(stream.buffered_bytes for stream in self.streams)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return
        client = Client(send)
        if scope["path"].startswith("/ready"):
            await client.begin(503 if self.draining else 200, [])
            await client.give(b"", last=True)
            return
        self._open += 1
        self.idle.clear()
        account = Account(path=scope["path"], headers=headers_of(scope))
        try:
            outcome = await self._answer(scope, receive, client, account)
            self.metrics.streams.labels(outcome.value).inc()
            if self.spool is not None and not client.passed_over:
                account.status = client.status
                await self.spool.write(account, outcome)
        finally:
            self._open -= 1
            if not self._open:
                self.idle.set()

    async def _answer(self, scope: Message, receive: Receive, client: Client, account: Account) -> Outcome:
        try:
            request = await read_request(scope, receive, self.max_body)
        except ClientLeft:
            return Outcome.CLIENT_LEFT
        except BodyTooLarge:
            message = "The request body is too large for this gateway."
            await client.refuse(413, "request_too_large", message, "invalid_request_error")
            return Outcome.REFUSED
        return await self._unless_gone(self._stream(request, client, account), client, receive)

    async def _stream(self, request: Request, client: Client, account: Account) -> Outcome:
        key = request.headers.get(SERVICE_HEADER, "")
        if self.service(key) is None:
            # Without `HANDLED`: Envoy goes on to the regions themselves, and their answer is the one that counts.
            client.passed_over = True
            await client.begin(503, [("content-type", "text/plain")])
            await client.give(b"The relay does not know the service.\n", last=True)
            return Outcome.REFUSED
        traced = StreamTrace(self.tracing, request, key)
        lookup = partial(self.service, key)
        stream = Stream(request, key, lookup, self.upstream, client, self.metrics, self.patience, account, traced)
        self.streams.add(stream)
        outcome = Outcome.CLIENT_LEFT
        try:
            outcome = await stream.run()
            return outcome
        except Exception:
            outcome = Outcome.FAILED
            log.exception("a stream failed")
            message, code = "The relay failed.", "internal_error"
            if client.begun:
                await client.give(error_event(message, code), last=True)
            else:
                await client.refuse(500, code, message)
            return Outcome.FAILED
        finally:
            traced.end(outcome)
            self.streams.discard(stream)

    @staticmethod
    async def _unless_gone(work: Coroutine[Any, Any, Outcome], client: Client, receive: Receive) -> Outcome:
        """Does the work; drops it when the client leaves before it has its answer, and its upstream with it."""
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(leaves(receive))
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            if working.done() or client.finished:
                return await working
        finally:
            gone.cancel()
            working.cancel()
        await asyncio.wait({working})
        return Outcome.CLIENT_LEFT
