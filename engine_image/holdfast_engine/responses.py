"""OpenAI's form of answers: whole ones, streams of events, errors. A stream that fails ends without [DONE]."""

from __future__ import annotations

import time
import uuid

from starlette.responses import JSONResponse, Response
from starlette.types import Send

from holdfast_engine import answers
from holdfast_engine.errors import EngineError
from holdfast_engine.generation import Generation
from holdfast_engine.protocol import ChatRequest, CompletionRequest
from holdfast_engine.reading import AnswerReader
from holdfast_engine.sending import GenerationResponse
from holdfast_engine.shim import Shim
from holdfast_engine.tracing import went_wrong

MAX_ID_LENGTH = 256


def error_response(error: EngineError) -> Response:
    went_wrong(error)
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    if error.leaving:
        headers["connection"] = "close"  # HTTP/2 has GOAWAY instead, and drops this header
    return JSONResponse(error.body(), error.status, headers)


def answer_id(request_id: str | None, prefix: str) -> str:
    """The client's x-request-id where it is usable, so that a retried request keeps its name."""
    if request_id and len(request_id) <= MAX_ID_LENGTH and request_id.isascii() and request_id.isprintable():
        return request_id
    return f"{prefix}-{uuid.uuid4().hex}"


class GeneratedResponse(GenerationResponse):
    """The answer to a completion or a chat."""

    def __init__(
        self,
        request: CompletionRequest | ChatRequest,
        generation: Generation,
        shim: Shim,
        request_id: str | None,
    ) -> None:
        self._with_ids = request.return_token_ids and shim.loaded.tells_ids
        reader = AnswerReader(generation, shim.vocabulary, request.stops, self._with_ids)
        super().__init__(reader, bool(request.stream))
        self._request = request
        prefix = "chatcmpl" if isinstance(request, ChatRequest) else "cmpl"
        self._id = answer_id(request_id, prefix)

    async def _prompt(self) -> tuple[answers.Answer, int]:
        """The answer's frame and the prompt's length, once the request is accepted."""
        prompt_ids = await self._reader.prompt_ids()
        kind = answers.ChatAnswer if isinstance(self._request, ChatRequest) else answers.CompletionAnswer
        returned = prompt_ids if self._with_ids else None
        return kind(self._id, self._request.model, int(time.time()), returned), self._reader.prompt_tokens

    async def _send_whole(self, send: Send) -> str:
        answer, prompt_tokens = await self._prompt()
        new = await self._reader.rest()
        assert new.reason is not None
        used = answers.usage(prompt_tokens, self._reader.token_count)
        whole = JSONResponse(answer.whole(new, used), headers=self._own_headers())
        await self._respond(whole, send)
        return new.reason

    async def _send_stream(self, send: Send) -> str:
        answer, prompt_tokens = await self._prompt()
        reason: str | None = None
        while reason is None:
            new = await self._reader.next()
            reason = new.reason
            first = not self._begun
            if first:
                await self._begin_events(send, self._own_headers())
            if first or new.text or new.token_ids or reason:
                await self._send_event(send, answers.event(answer.chunk(new, first=first)))
        if self._request.include_usage:
            used = answers.usage(prompt_tokens, self._reader.token_count)
            await self._send_event(send, answers.event(answer.usage_chunk(used)))
        await self._send_event(send, answers.DONE, last=True)
        return reason

    def _refused(self, error: EngineError) -> Response:
        return error_response(error)

    def _broken(self, error: EngineError) -> bytes:
        went_wrong(error)
        return answers.event(error.body())

    def _own_headers(self) -> dict[str, str]:
        return {"x-request-id": self._id}
