"""Serves one Envoy its resources, over a socket in its directory that nobody else can open.

It lives in the process that starts Envoy, so there is no moment at which Envoy runs and nobody serves it; and it reads
files alone, so that Envoy starts with the last good ones while whoever writes them is away.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
from watchfiles import awatch

from holdfast_gateway.files import replace
from holdfast_gateway.render.bootstrap import SOCKET
from holdfast_gateway.render.files import FOLLOWED_LISTENERS, LISTENERS
from holdfast_gateway.xds.held import Held
from holdfast_gateway.xds.messages import discovery
from holdfast_gateway.xds.stream import Message, Stream

log = logging.getLogger(__name__)

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
SETTLE_MILLISECONDS, STEP_MILLISECONDS = 20, 5
"""How long files that are written together may take; how often it is looked whether they are."""
LOOK_SECONDS = 1.0
"""After so long the files are looked at though nobody told of a change."""
LONGEST_PATH = 107
"""Bytes of a socket's path (unix(7))."""


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[None]:
    """Serves until it is left. Raises OSError if the socket cannot be made, or the directory not be read."""
    socket = directory / SOCKET
    if len(os.fsencode(socket)) > LONGEST_PATH:
        raise OSError(f"{socket} is too long for a socket's path, which has {LONGEST_PATH} bytes at most")
    served = Discovery(directory)
    await served.look()
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((served.handler(),))
    socket.unlink(missing_ok=True)
    before = os.umask(0o077)
    try:
        server.add_insecure_port(f"unix:{socket}")
    except RuntimeError as error:
        raise OSError(f"{socket} cannot be listened on: {error}") from error
    finally:
        os.umask(before)
    await server.start()
    following = asyncio.create_task(served.follow())
    try:
        yield
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await server.stop(None)
        socket.unlink(missing_ok=True)


class Discovery:
    """Tells every connected Envoy what changed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held = Held(directory)
        self._changed = asyncio.Condition()
        self._changes = 0

    async def follow(self) -> None:
        """Looks at the files whenever one changed, until cancelled."""
        trouble = ""
        while True:
            try:
                await self.look()
                watch = awatch(
                    self._directory, watch_filter=None, recursive=False, debounce=SETTLE_MILLISECONDS,
                    step=STEP_MILLISECONDS, rust_timeout=int(1000 * LOOK_SECONDS), yield_on_timeout=True,
                )  # fmt: skip
                async for _ in watch:
                    await self.look()
                    trouble = ""
            except (OSError, RuntimeError) as error:  # the latter where the kernel gives no inotify instance
                if trouble != str(error):
                    trouble = str(error)
                    log.error("%s cannot be watched, looking every %g s: %s", self._directory, LOOK_SECONDS, error)
                await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Takes up what changed, and then lets Envoy have the listeners. Raises OSError.

        The listeners are written last: whatever those lead to that were there before is among what is read after.
        """
        listeners = self._directory / LISTENERS
        text = listeners.read_text() if listeners.exists() else None
        for changed in self._held.refresh():
            if changed:
                async with self._changed:
                    self._changes += 1
                    self._changed.notify_all()
            await asyncio.sleep(0)
        if text is not None:
            replace(self._directory / FOLLOWED_LISTENERS, text)

    async def connected(self, requests: AsyncIterator[Any], context: Any) -> None:
        """One Envoy, for as long as it is connected."""
        stream = Stream()
        asked = asyncio.create_task(self._listen(requests, stream))
        nonce = 0
        try:
            while not asked.done():
                seen = self._changes
                for message in stream.due(self._held.resources):
                    nonce += 1
                    await context.write(response(message, str(nonce)))
                await self._news(seen, asked)
        finally:
            asked.cancel()

    async def _news(self, seen: int, asked: asyncio.Task[None]) -> None:
        """Until something changed since, or the Envoy is gone."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._changes != seen or asked.done())

    async def _listen(self, requests: AsyncIterator[Any], stream: Stream) -> None:
        try:
            async for request in requests:
                if request.HasField("error_detail"):
                    log.error("Envoy refuses what it was sent: %s", request.error_detail.message)
                stream.take(
                    request.type_url,
                    tuple(request.resource_names_subscribe),
                    tuple(request.resource_names_unsubscribe),
                    request.initial_resource_versions,
                )
                async with self._changed:
                    self._changes += 1
                    self._changed.notify_all()
        finally:
            async with self._changed:
                self._changed.notify_all()

    def handler(self) -> Any:
        """The method by its path."""
        request, answer = discovery("DeltaDiscoveryRequest"), discovery("DeltaDiscoveryResponse")
        method = grpc.stream_stream_rpc_method_handler(self.connected, request.FromString, answer.SerializeToString)

        class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
            def service(self, details: Any) -> Any:
                return method if details.method == METHOD else None

        return Handler()


def response(message: Message, nonce: str) -> Any:
    """The message as it travels."""
    sent = discovery("Resource")
    return discovery("DeltaDiscoveryResponse")(
        type_url=message.kind,
        nonce=nonce,
        resources=[sent(name=each.name, version=each.version, resource=each.body) for each in message.resources],
        removed_resources=message.removed,
    )
