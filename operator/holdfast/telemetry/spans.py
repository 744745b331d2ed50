"""Spans of requests, as those see them who are traced; nothing at all until `export.py` puts something behind it.

Attributes carry OpenTelemetry's names where it has some (HTTP, GenAI), vLLM's where only that has (`gen_ai.latency.…`),
and `holdfast.…` else. Never a prompt, an answer or a credential.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Value = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Value]


class Span:
    """A span that nobody keeps."""

    trace_id = ""
    span_id = ""

    def child(self, name: str, attributes: Attributes | None = None) -> Span:  # noqa: ARG002
        """What is asked of others on this one's behalf."""
        return self

    def headers(self) -> dict[str, str]:
        """What makes another process's spans children of this one; empty: the request's own headers say it already."""
        return {}

    def rename(self, name: str) -> None:
        """Its name, once that is known."""

    def set(self, attributes: Attributes) -> None:
        """Adds attributes."""

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Notes that something happened now."""

    def fail(self, kind: str, what: str = "") -> None:
        """It went wrong; `kind` is one of few words, `what` a sentence without anything of the request."""

    def end(self) -> None:
        """It is over; to be called once."""


class Tracing:
    """Spans that nobody keeps."""

    def begin(self, name: str, headers: Mapping[str, str], attributes: Attributes | None = None) -> Span:  # noqa: ARG002
        """A request that came with these headers (lower-case names)."""
        return NOTHING

    def close(self) -> None:
        """Sends what is left, for a moment at most."""


NOTHING = Span()
OFF = Tracing()
