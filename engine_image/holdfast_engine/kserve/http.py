"""The v2 protocol over HTTP, below /v2. Errors are Triton's: `{"error": "…"}`, with the status that fits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Send

from holdfast_engine.body import read_body
from holdfast_engine.errors import EngineError, InvalidRequestError, UnknownPathError, WrongMethodError
from holdfast_engine.kserve import bodies, metadata
from holdfast_engine.kserve.front import Answer, Front
from holdfast_engine.kserve.tensors import Tensor
from holdfast_engine.sending import GenerationResponse
from holdfast_engine.tracing import went_wrong

NOT_READY = 400
"""The protocol's answer to questions of health that are to be denied, and Triton's."""


class AnswerResponse(GenerationResponse):
    """What the three kinds of answers have in common."""

    def __init__(self, answer: Answer, served_name: str, stream: bool = False) -> None:
        super().__init__(answer.reader, stream)
        self._answer = answer
        self._names = (served_name, metadata.VERSION, answer.id)

    async def _send_whole(self, send: Send) -> str:
        ended = ""
        async for tensors, reason in self._answer.parts():
            await self._respond(self._form(tensors), send)
            ended = reason or ""
        return ended

    async def _send_stream(self, send: Send) -> str:
        ended = ""
        async for tensors, reason in self._answer.parts():
            if not self._begun:
                await self._begin_events(send)
            event = _event(bodies.generate_object(*self._names, tensors))
            await self._send_event(send, event, last=reason is not None)
            ended = reason or ""
        return ended

    def _form(self, tensors: list[Tensor]) -> Response:
        return JSONResponse(bodies.generate_object(*self._names, tensors))

    def _refused(self, error: EngineError) -> Response:
        return error_response(error)

    def _broken(self, error: EngineError) -> bytes:
        went_wrong(error)
        return _event({"error": str(error)})


class InferResponse(AnswerResponse):
    def __init__(self, answer: Answer, served_name: str, binary: Mapping[str, bool]) -> None:
        super().__init__(answer, served_name)
        self._binary = binary

    def _form(self, tensors: list[Tensor]) -> Response:
        body, length = bodies.infer_body(*self._names, tensors, self._binary)
        if length is None:
            return Response(body, media_type="application/json")
        return Response(body, headers={bodies.HEADER_LENGTH: str(length)}, media_type="application/octet-stream")


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def error_response(error: EngineError) -> Response:
    went_wrong(error)
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return JSONResponse({"error": str(error)}, error.status, headers)


@dataclass(frozen=True)
class Handlers:
    front: Front

    async def server(self, _: Request) -> Response:
        return JSONResponse(self.front.server())

    async def live(self, _: Request) -> Response:
        return Response(status_code=200 if self.front.live() else NOT_READY)

    async def ready(self, _: Request) -> Response:
        return Response(status_code=200 if self.front.ready() else NOT_READY)

    async def model_ready(self, request: Request) -> Response:
        self._model(request)
        return await self.ready(request)

    async def model(self, request: Request) -> Response:
        self._model(request)
        return JSONResponse(metadata.model(self.front.served_name))

    async def config(self, request: Request) -> Response:
        self._model(request)
        return JSONResponse(metadata.config(self.front.served_name))

    async def index(self, request: Request) -> Response:
        return JSONResponse(self.front.index(bodies.parse_index(await read_body(request))))

    async def infer(self, request: Request) -> Response:
        length = request.headers.get(bodies.HEADER_LENGTH)
        asked, binary = bodies.parse_infer(*self._model(request), await _plain_body(request), length)
        return InferResponse(self.front.begin(asked), self.front.served_name, binary)

    async def generate(self, request: Request) -> Response:
        asked = bodies.parse_generate(*self._model(request), await _plain_body(request))
        return AnswerResponse(self.front.begin(asked), self.front.served_name)

    async def generate_stream(self, request: Request) -> Response:
        asked = bodies.parse_generate(*self._model(request), await _plain_body(request))
        return AnswerResponse(self.front.begin(asked, streams=True), self.front.served_name, stream=True)

    def _model(self, request: Request) -> tuple[str, str]:
        name, version = request.path_params["name"], request.path_params.get("version", "")
        self.front.check(name, version)
        return name, version


async def _plain_body(request: Request) -> bytes:
    if (coding := request.headers.get("content-encoding", "identity")) != "identity":
        raise InvalidRequestError(f"Bodies in the content coding {coding!r:.40} are not supported: send it as it is.")
    return await read_body(request)


async def _engine_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, EngineError)
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        response = error_response(WrongMethodError(f"{request.method} is not allowed on {request.url.path}."))
        response.headers.update(error.headers or {})
        return response
    return error_response(UnknownPathError(f"Unknown path: {request.url.path}"))


async def _client_left(_: Request, error: Exception) -> Response:
    assert isinstance(error, ClientDisconnect)
    return Response(status_code=400)


async def _unexpected(_: Request, error: Exception) -> Response:
    return error_response(EngineError(f"Internal error: {type(error).__name__}"))


def routes(front: Front) -> list[BaseRoute]:
    """Those of the v2 protocol, for the engine's app; a model's name may hold slashes."""
    handlers = Handlers(front)
    below = [
        Route("/health/live", handlers.live),
        Route("/health/ready", handlers.ready),
        Route("/repository/index", handlers.index, methods=["POST"]),
    ]
    for model in ("/models/{name:path}/versions/{version}", "/models/{name:path}"):
        below += [
            Route(f"{model}/infer", handlers.infer, methods=["POST"]),
            Route(f"{model}/generate", handlers.generate, methods=["POST"]),
            Route(f"{model}/generate_stream", handlers.generate_stream, methods=["POST"]),
            Route(f"{model}/ready", handlers.model_ready),
            Route(f"{model}/config", handlers.config),
            Route(model, handlers.model),
        ]
    app = Starlette(
        routes=below,
        exception_handlers={
            EngineError: _engine_error,
            HTTPException: _http_error,
            ClientDisconnect: _client_left,
            Exception: _unexpected,
        },
    )
    return [Route("/v2", handlers.server), Mount("/v2", app)]
