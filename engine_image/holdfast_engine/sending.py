"""ASGI responses that generate: they watch for the client's leaving and stop its generation when it does.

No byte goes out before the first token exists (streams) or the answer is complete (the others), so that a
gateway can try another engine until then. An error before that point is an ordinary JSON error; after it, a
stream ends with an error event.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from holdfast_engine.errors import EngineError
from holdfast_engine.reading import AnswerReader


class GenerationResponse(Response):
    """One request's answer, generated while it is sent. A form of answers says what is sent, and how errors look."""

    def __init__(self, reader: AnswerReader, stream: bool) -> None:
        super().__init__()
        self._reader = reader
        self._stream = stream
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ended = "abort"

        async def work() -> None:
            nonlocal ended
            ended = await (self._send_stream(send) if self._stream else self._send_whole(send))

        try:
            await _unless_gone(work(), receive)
        except EngineError as error:
            ended = "error"
            if self._begun:
                await send({"type": "http.response.body", "body": self._broken(error)})
            else:
                await self._refused(error)(scope, receive, send)
        finally:
            self._reader.close(ended)

    @abstractmethod
    async def _send_whole(self, send: Send) -> str:
        """Send the answer when it is complete; the finish reason."""

    @abstractmethod
    async def _send_stream(self, send: Send) -> str:
        """Send the answer as it comes; the finish reason."""

    @abstractmethod
    def _refused(self, error: EngineError) -> Response:
        """What is sent when nothing has been sent before."""

    @abstractmethod
    def _broken(self, error: EngineError) -> bytes:
        """The last event of a stream that fails."""

    async def _respond(self, response: Response, send: Send) -> None:
        await response({"type": "http"}, _nothing_to_receive, send)

    async def _begin_events(self, send: Send, own_headers: Mapping[str, str] | None = None) -> None:
        self._begun = True
        headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            **(own_headers or {}),
        }
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": encoded})

    async def _send_event(self, send: Send, event: bytes, *, last: bool = False) -> None:
        await send({"type": "http.response.body", "body": event, "more_body": not last})


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _unless_gone(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Do `work`; cancel it when the client leaves."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_client_gone(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        finished = working.done()
        working.cancel()
    if finished:
        working.result()


async def _nothing_to_receive() -> dict[str, Any]:
    raise RuntimeError("the request has been read")
