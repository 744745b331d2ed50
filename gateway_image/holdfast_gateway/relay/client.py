"""The client's side of one stream, over ASGI. Nothing is sent before there is something to say; a client that is slow
to read makes whoever sends wait."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from holdfast_gateway.relay.events import KEEP_ALIVE

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
HANDLED = "x-envoy-ratelimited"
"""On an error that all regions were asked about: tells Envoy not to ask them again, and does not leave it."""


class ClientLeft(Exception):
    """Nobody reads on."""


class BodyTooLarge(Exception):
    """The request is larger than allowed."""


@dataclass(frozen=True)
class Request:
    """A client's request."""

    path: str
    target: str
    """Path and query."""
    headers: dict[str, str]
    body: bytes


async def read_request(scope: Message, receive: Receive, most: int) -> Request:
    """The whole request; raises ClientLeft, or BodyTooLarge for a body of more than `most` bytes."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            raise BodyTooLarge
    query = scope.get("query_string", b"").decode("latin-1")
    return Request(scope["path"], scope["path"] + (f"?{query}" if query else ""), headers_of(scope), bytes(body))


def headers_of(scope: Message) -> dict[str, str]:
    """A request's headers, names in lower case."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


async def leaves(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Client:
    """What is sent to one client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = asyncio.Lock()
        self._sent_at = time.monotonic()
        self.begun = False
        self.status: int | None = None
        """Of the answer, once it has begun."""
        self.passed_over = False
        """Whether somebody else is asked for the answer."""
        self.finished = False
        """Whether all of the answer was given."""

    async def begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """The answer's head."""
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        async with self._lock:
            await self._send({"type": "http.response.start", "status": status, "headers": encoded})
            self._sent_at = time.monotonic()
            self.begun = True
            self.status = status

    async def give(self, data: bytes, *, last: bool = False) -> None:
        """A part of the body; returns when it is taken."""
        async with self._lock:
            await self._send({"type": "http.response.body", "body": data, "more_body": not last})
            self._sent_at = time.monotonic()
            self.finished = last

    async def refuse(self, status: int, code: str, message: str, kind: str = "server_error") -> None:
        """A whole answer: an error in OpenAI's form."""
        body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()
        await self.begin(status, [("content-type", "application/json"), (HANDLED, "true")])
        await self.give(body, last=True)

    async def keep_alive(self, interval: float) -> None:
        """Sends a comment whenever nothing else was sent for `interval` seconds. Works until cancelled."""
        while True:
            idle = time.monotonic() - self._sent_at
            if idle < interval or self._lock.locked():
                await asyncio.sleep(max(0.05, interval - idle))
            else:
                await self.give(KEEP_ALIVE)
