"""One stream as a span, below the one of Envoy that handed it over; an attempt at an engine is a span below that, and
each continuation an event. Log lines meanwhile are those of this request."""

from __future__ import annotations

import time

from holdfast.api.names import TENANT_HEADER
from holdfast.telemetry.logs import belong_to
from holdfast.telemetry.spans import NOTHING, Attributes, Span, Tracing
from holdfast_gateway.relay.asked import CHAT
from holdfast_gateway.relay.client import Request
from holdfast_gateway.relay.failure import UpstreamFailure
from holdfast_gateway.relay.metrics import Outcome
from holdfast_gateway.relay.search import Loss

GOOD = (Outcome.COMPLETED, Outcome.CONTINUED, Outcome.CLIENT_LEFT)


class StreamTrace:
    """What is told of one stream while it runs: nothing of what it says."""

    def __init__(self, tracing: Tracing, request: Request, service: str) -> None:
        headers = request.headers
        said = {
            "holdfast.tenant": headers.get(TENANT_HEADER, ""),
            "holdfast.request_id": headers.get("x-request-id", ""),
        }
        self._operation = "chat" if request.path == CHAT else "text_completion"
        self._span = tracing.begin(
            self._operation,
            headers,
            {
                "gen_ai.operation.name": self._operation,
                "holdfast.service": service,
                **{name: value for name, value in said.items() if value},
            },
        )
        self._attempt: Span = NOTHING
        self._began = time.monotonic()
        self._begun = False
        self._tokens = 0
        self._resumes = 0
        own = {"trace_id": self._span.trace_id, "span_id": self._span.span_id} if self._span.trace_id else {}
        belong_to(headers, service=service, **own)

    def model(self, name: object) -> None:
        """The model that is asked for."""
        if isinstance(name, str):
            self._span.rename(f"{self._operation} {name:.200}")
            self._span.set({"gen_ai.request.model": name[:200]})

    def attempt(self, number: int, region: str | None) -> dict[str, str]:
        """An engine is asked; None: of whichever region Envoy chooses. The headers that make its spans children."""
        self._attempt.end()
        where = {} if region is None else {"holdfast.region": region}
        self._attempt = self._span.child(f"attempt {number}", {"holdfast.attempt": number, **where})
        return self._attempt.headers()

    def answered(self, status: int, region: str | None) -> None:
        """The head of its answer came."""
        found: Attributes = {} if region is None else {"holdfast.region": region}
        self._attempt.set({"http.response.status_code": status, **found})

    def gave(self, tokens: int) -> None:
        """Something went to the client, with so many more tokens as far as they are known."""
        if not self._begun:
            self._begun = True
            self._span.set({"gen_ai.response.time_to_first_chunk": round(time.monotonic() - self._began, 6)})
        self._tokens += tokens

    def lost(self, failure: UpstreamFailure) -> None:
        """The engine that was asked will not complete the stream."""
        self._attempt.fail(failure.reason.value, str(failure))
        self._attempt.set({"holdfast.tokens": self._tokens})
        self._attempt.end()

    def resumed(self, loss: Loss, region: str) -> None:
        """Another one has gone on."""
        self._resumes += 1
        pause = round(1000 * (time.monotonic() - loss.token_at), 1)
        told = {"reason": loss.failure.reason.value, "from": loss.region or "unknown", "to": region}
        self._span.event("resume", {**told, "tokens": self._tokens, "pause_ms": pause})

    def end(self, outcome: Outcome) -> None:
        """The client has all that it will get."""
        self._attempt.end()
        told: Attributes = {"holdfast.outcome": outcome.value, "holdfast.resumes": self._resumes}
        used: Attributes = {"gen_ai.usage.output_tokens": self._tokens} if self._tokens else {}
        self._span.set({**told, **used})
        if outcome not in GOOD:
            self._span.fail(outcome.value)
        self._span.end()
