"""A request as a span: begun when it arrives, below the one of the gateway that sent it, and ended with its answer.

The span travels with the request's own task, so that nothing between hands it on. Observers' requests have none.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast.api.names import PROBE_HEADER, TENANT_HEADER
from holdfast.telemetry.logs import belong_to
from holdfast.telemetry.spans import NOTHING, OFF, Attributes, Span, Tracing
from holdfast_engine.admission import Priority
from holdfast_engine.errors import EngineError

CHAT = "/v1/chat/completions"
_current: ContextVar[Span] = ContextVar("holdfast_engine_span", default=NOTHING)


class Timeline:
    """When what happened to one request, by the monotonic clock, and what its span says of it in the end."""

    def __init__(self, now: float, priority: Priority) -> None:
        self.span = _current.get()
        self.tokens = 0
        """Generated so far."""
        self.given_at: float | None = None
        """When the engine was given it."""
        self.first_token_at: float | None = None
        self._began = now
        self._priority = priority

    def generated(self, tokens: int, now: float) -> None:
        """So many more tokens came."""
        self.tokens += tokens
        if self.first_token_at is None:
            self.first_token_at = now

    def end(self, reason: str, prompt_tokens: int) -> None:
        """The answer ended with `reason` (stop, length, abort, error)."""
        if self.span is NOTHING:
            return
        found: dict[str, str | int | float | bool | list[str]] = {
            "gen_ai.usage.input_tokens": prompt_tokens,
            "gen_ai.usage.output_tokens": self.tokens,
            "gen_ai.response.finish_reasons": [reason],
            "gen_ai.latency.e2e": self._since(time.monotonic()),
            "holdfast.priority": self._priority.value,
            "holdfast.cancelled": reason == "abort",
        }
        if self.given_at is not None:
            found["gen_ai.latency.time_in_queue"] = self._since(self.given_at)
        if self.first_token_at is not None:
            found["gen_ai.latency.time_to_first_token"] = self._since(self.first_token_at)
        self.span.set(found)

    def _since(self, moment: float) -> float:
        return round(moment - self._began, 6)


def trace_headers() -> dict[str, str]:
    """What makes an engine's own spans children of this task's; empty where nobody traces."""
    return _current.get().headers()


def went_wrong(error: EngineError) -> None:
    """The request of this task is answered with an error: a failure only where the engine is to blame."""
    span, kind = _current.get(), error.code or "invalid_request"
    if error.status >= 500:
        span.fail(kind)
    else:
        span.set({"error.type": kind})


@contextmanager
def traced(tracing: Tracing, operation: str, model: str, headers: Mapping[str, str]) -> Iterator[Span]:
    """The request of this task, which came with these headers (lower-case names)."""
    if PROBE_HEADER in headers:
        yield NOTHING
        return
    span = tracing.begin(f"{operation} {model}", headers, _said(operation, model, headers))
    belong_to(headers, **({"trace_id": span.trace_id, "span_id": span.span_id} if span.trace_id else {}))
    token = _current.set(span)
    try:
        yield span
    except EngineError:
        raise  # told by `went_wrong`
    except Exception as error:
        span.fail(type(error).__name__)
        raise
    finally:
        _current.reset(token)
        span.end()


def _said(operation: str, model: str, headers: Mapping[str, str]) -> Attributes:
    said = {"holdfast.request_id": headers.get("x-request-id"), "holdfast.tenant": headers.get(TENANT_HEADER)}
    own = {name: value for name, value in said.items() if value}
    return {"gen_ai.operation.name": operation, "gen_ai.request.model": model, **own}


class TracedApp:
    """The HTTP routes, each POST in a span of its own."""

    def __init__(self, app: ASGIApp, model: str, tracing: Tracing = OFF) -> None:
        self._app = app
        self._model = model
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        operation = "chat" if scope["path"] == CHAT else "text_completion"
        with traced(self._tracing, operation, self._model, of_pairs(scope["headers"])) as span:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set({"http.response.status_code": message["status"]})
                await send(message)

            span.set({"http.request.method": "POST", "url.path": scope["path"]})
            await self._app(scope, receive, send if span is NOTHING else noting)


def of_pairs(pairs: Iterable[tuple[bytes | str, bytes | str]]) -> dict[str, str]:
    """Headers, or gRPC's metadata, as a mapping with lower-case names."""
    return {_text(name).lower(): _text(value) for name, value in pairs}


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
