"""ASGI responses that generate: they watch for the client's leaving and stop its generation when it does.

No byte goes out before the first token exists (streams) or the answer is complete (the others), so that a
gateway can try another engine until then. An error before that point is an ordinary JSON error; after it, a
stream ends with an error event and without [DONE].
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Coroutine
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from holdfast_engine import answers
from holdfast_engine.errors import EngineError
from holdfast_engine.protocol import ChatRequest, CompletionRequest
from holdfast_engine.shim import Generation, Shim
from holdfast_engine.text import TextAssembler

MAX_ID_LENGTH = 256


def error_response(error: EngineError) -> Response:
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return JSONResponse(error.body(), error.status, headers)


def answer_id(request_id: str | None, prefix: str) -> str:
    """The client's x-request-id where it is usable, so that a retried request keeps its name."""
    if request_id and len(request_id) <= MAX_ID_LENGTH and request_id.isascii() and request_id.isprintable():
        return request_id
    return f"{prefix}-{uuid.uuid4().hex}"


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


class GeneratedResponse(Response):
    """One request's answer, generated while it is sent."""

    def __init__(
        self,
        request: CompletionRequest | ChatRequest,
        generation: Generation,
        shim: Shim,
        request_id: str | None,
    ) -> None:
        super().__init__()
        self._request = request
        self._generation = generation
        self._assembler = TextAssembler(shim.vocabulary, request.stops, request.return_token_ids)
        prefix = "chatcmpl" if isinstance(request, ChatRequest) else "cmpl"
        self._id = answer_id(request_id, prefix)
        self._reason = "abort"
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = self._stream(send) if self._request.stream else self._answer(send)
        try:
            await _unless_gone(work, receive)
        except EngineError as error:
            self._reason = "error"
            if self._begun:
                await send({"type": "http.response.body", "body": answers.event(error.body())})
            else:
                await error_response(error)(scope, receive, send)
        finally:
            self._generation.close(self._reason)

    async def _prompt(self) -> tuple[answers.Answer, int]:
        """The answer's frame and the prompt's length, once the request is accepted."""
        prompt_ids = await self._generation.prompt_ids()
        kind = answers.ChatAnswer if isinstance(self._request, ChatRequest) else answers.CompletionAnswer
        returned = prompt_ids if self._request.return_token_ids else None
        return kind(self._id, self._request.model, int(time.time()), returned), len(prompt_ids)

    async def _next_piece(self) -> tuple[str, list[int], str | None]:
        """Text and token ids that are new, and the finish reason at the end."""
        output = await self._generation.next()
        reason = output.reason
        if output.text is None:
            piece = self._assembler.add(output.token_ids)
        else:
            piece = self._assembler.add_text(output.text, output.token_ids)
        if piece.stopped:
            return piece.text, piece.token_ids, "stop"
        if reason is None:
            return piece.text, piece.token_ids, None
        rest = self._assembler.finish()
        return piece.text + rest.text, piece.token_ids + rest.token_ids, "stop" if rest.stopped else reason

    async def _answer(self, send: Send) -> None:
        answer, prompt_tokens = await self._prompt()
        text, token_ids, reason = "", list[int](), None
        while reason is None:
            more_text, more_ids, reason = await self._next_piece()
            text += more_text
            token_ids += more_ids
        used = answers.usage(prompt_tokens, self._assembler.token_count)
        response = JSONResponse(answer.whole(text, token_ids, reason, used), headers=self._own_headers())
        await response({"type": "http"}, _nothing_to_receive, send)
        self._reason = reason

    async def _stream(self, send: Send) -> None:
        answer, prompt_tokens = await self._prompt()
        reason: str | None = None
        while reason is None:
            text, token_ids, reason = await self._next_piece()
            if not self._begun:
                await self._begin(send)
                await self._send(send, answer.chunk(text, token_ids, reason, first=True))
            elif text or token_ids or reason:
                await self._send(send, answer.chunk(text, token_ids, reason, first=False))
        if self._request.include_usage:
            used = answers.usage(prompt_tokens, self._assembler.token_count)
            await self._send(send, answer.usage_chunk(used))
        await send({"type": "http.response.body", "body": answers.DONE})
        self._reason = reason

    def _own_headers(self) -> dict[str, str]:
        return {"x-request-id": self._id}

    async def _begin(self, send: Send) -> None:
        self._begun = True
        headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            **self._own_headers(),
        }
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": encoded})

    async def _send(self, send: Send, chunk: answers.Json) -> None:
        await send({"type": "http.response.body", "body": answers.event(chunk), "more_body": True})


async def _nothing_to_receive() -> dict[str, Any]:
    raise RuntimeError("the request has been read")
