"""The HTTP routes: OpenAI's API, health and metrics; KServe's beside it.

Health and metrics never wait for the pipeline.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from holdfast_engine.admission import Priority
from holdfast_engine.body import read_body
from holdfast_engine.errors import (
    EngineError,
    InvalidRequestError,
    UnknownModelError,
    UnknownPathError,
    WrongMethodError,
)
from holdfast_engine.generation import Generation
from holdfast_engine.health import Reason
from holdfast_engine.kserve.front import Front
from holdfast_engine.kserve.http import routes as kserve_routes
from holdfast_engine.metrics import CONTENT_TYPE, EngineMetrics
from holdfast_engine.protocol import (
    PRIORITY_HEADER,
    TIMEOUT_HEADER,
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    given_priority,
    given_timeout,
    parse,
)
from holdfast_engine.responses import GeneratedResponse, error_response
from holdfast_engine.shim import Prompt, Shim

PROBE_HEADER = "x-holdfast-probe"
"""Marks an observer's request for a single token; gateways take it from what their clients send."""


@dataclass(frozen=True)
class EngineApp:
    """The routes' handlers for one engine."""

    shim: Shim
    metrics: EngineMetrics
    served_name: str
    created: int

    async def completions(self, request: Request) -> Response:
        asked = parse(CompletionRequest, await read_body(request))
        self._check_model(asked.model)
        prompt = Prompt(text=asked.prompt) if isinstance(asked.prompt, str) else Prompt(token_ids=asked.prompt)
        generation = self._submit(asked, prompt, request)
        return GeneratedResponse(asked, generation, self.shim, request.headers.get("x-request-id"))

    async def chat(self, request: Request) -> Response:
        asked = parse(ChatRequest, await read_body(request))
        self._check_model(asked.model)
        generation = self._submit(asked, Prompt(messages=asked.plain_messages), request)
        return GeneratedResponse(asked, generation, self.shim, request.headers.get("x-request-id"))

    def _submit(self, asked: GenerationRequest, prompt: Prompt, request: Request) -> Generation:
        return self.shim.submit(
            asked.sampling(secrets.randbits(63)),
            prompt,
            stops=tuple(asked.stops),
            chosen=asked.chosen,
            priority=given_priority(request.headers.get(PRIORITY_HEADER)) or asked.priority or Priority.NORMAL,
            timeout=given_timeout(request.headers.get(TIMEOUT_HEADER)),
            probe=PROBE_HEADER in request.headers,
        )

    def _check_model(self, name: str) -> None:
        if name != self.served_name:
            raise UnknownModelError(f"The model `{name}` does not exist.", param="model")

    async def models(self, _: Request) -> Response:
        model = {
            "id": self.served_name,
            "object": "model",
            "created": self.created,
            "owned_by": "holdfast",
            "max_model_len": self.shim.max_model_len,
        }
        return JSONResponse({"object": "list", "data": [model]})

    async def health(self, _: Request) -> Response:
        """Ready to be routed to."""
        return self._verdict(self.shim.health.not_ready())

    async def livez(self, _: Request) -> Response:
        """Able to make progress; if not, restart the process."""
        return self._verdict(self.shim.health.not_alive())

    def _verdict(self, reason: Reason | None) -> Response:
        if reason is None:
            return JSONResponse({"status": "ok"})
        detail = self.shim.health.failure if reason is Reason.FAILED else None
        return JSONResponse({"status": "unavailable", "reason": reason, "detail": detail}, 503)

    async def progress(self, _: Request) -> Response:
        """What health is judged by; see `Shim.progress`."""
        return JSONResponse(asdict(self.shim.progress()))

    async def show_metrics(self, _: Request) -> Response:
        return Response(self.metrics.render(), headers={"content-type": CONTENT_TYPE})


async def _engine_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, EngineError)
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_response(UnknownPathError(f"Unknown path: {request.url.path}"))
    if error.status_code == 405:
        response = error_response(WrongMethodError(f"{request.method} is not allowed on {request.url.path}."))
        response.headers.update(error.headers or {})
        return response
    return error_response(InvalidRequestError(error.detail))


async def _client_left(_: Request, error: Exception) -> Response:
    assert isinstance(error, ClientDisconnect)
    return Response(status_code=400)


async def _unexpected(_: Request, error: Exception) -> Response:
    return error_response(EngineError(f"Internal error: {type(error).__name__}"))


def build_app(shim: Shim, metrics: EngineMetrics, served_name: str) -> Starlette:
    handlers = EngineApp(shim, metrics, served_name, created=int(time.time()))
    return Starlette(
        routes=[
            Route("/v1/completions", handlers.completions, methods=["POST"]),
            Route("/v1/chat/completions", handlers.chat, methods=["POST"]),
            Route("/v1/models", handlers.models, methods=["GET"]),
            Route("/health", handlers.health, methods=["GET"]),
            Route("/livez", handlers.livez, methods=["GET"]),
            Route("/progress", handlers.progress, methods=["GET"]),
            Route("/metrics", handlers.show_metrics, methods=["GET"]),
            *kserve_routes(Front(shim, served_name)),
        ],
        exception_handlers={
            EngineError: _engine_error,
            HTTPException: _http_error,
            ClientDisconnect: _client_left,
            Exception: _unexpected,
        },
    )
