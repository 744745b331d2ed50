"""Judges what a server answered: a whole completion, or a stream of server-sent events piece by piece. Pure.

A stream's usual event is recognised by its bytes and counted; only the last ones are parsed as JSON, because the
load shares its machine with everything it measures.
"""

from __future__ import annotations

import json
from typing import Any

from .records import StreamOutcome

RUNNING = (b'"finish_reason":null', b'"finish_reason": null')
TEXT_SHOWN = 160
"""Characters of an unexpected answer that a record quotes."""


def request_error(status: int, body: bytes, tokens: int, exact: bool) -> str:
    """What is wrong with a whole answer; empty if it is right.

    `exact`: it must hold exactly `tokens` tokens, because the end-of-text token was to be ignored.
    """
    if status != 200:
        return f"status {status}: {_shown(body)}"
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        text, reason, made = choice["text"], choice["finish_reason"], answer["usage"]["completion_tokens"]
    except (ValueError, LookupError, TypeError):
        return f"no completion: {_shown(body)}"
    if not isinstance(text, str) or not text:
        return "an empty completion"
    return _wrong_end(reason, made, tokens, exact)


def _wrong_end(reason: Any, made: Any, tokens: int, exact: bool) -> str:
    if reason not in ("length", "stop"):
        return f"finish reason {reason}"
    if exact and (made != tokens or reason != "length"):
        return f"{made} tokens instead of {tokens}, finish reason {reason}"
    return ""


def _shown(body: bytes) -> str:
    text = body.decode(errors="replace").strip()
    return text[:TEXT_SHOWN] + ("…" if len(text) > TEXT_SHOWN else "") if text else "(no body)"


class StreamReader:
    """Reads one stream's bytes as they arrive, cut anywhere."""

    def __init__(self, tokens: int, exact: bool) -> None:
        self.events = 0
        """Events with a part of the answer."""
        self.done = False
        self._tokens = tokens
        self._exact = exact
        self._rest = b""
        self._reason: Any = None
        self._made: Any = None
        self._error = ""

    def feed(self, data: bytes) -> None:
        """Take in the next bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip())

    def outcome(self, cut: str) -> tuple[StreamOutcome, str]:
        """The verdict at the stream's end, with its reason; `cut` says how the connection ended, if not well."""
        if self._rest and not cut:
            self.feed(b"\n")  # a server may leave out the last line's end
        wrong = self._error or cut
        if not wrong and not self.done:
            wrong = "ended without [DONE]"
        if not wrong:
            made = self._tokens if self._made is None else self._made
            wrong = _wrong_end(self._reason, made, self._tokens, self._exact)
        if self.events == 0:
            return StreamOutcome.FAILED, wrong or "no token arrived"
        return (StreamOutcome.TRUNCATED, wrong) if wrong else (StreamOutcome.COMPLETED, "")

    def _event(self, content: bytes) -> None:
        if any(mark in content for mark in RUNNING):
            self.events += 1
        elif content == b"[DONE]":
            self.done = True
        else:
            self._last_event(content)

    def _last_event(self, content: bytes) -> None:
        """An event with the finish reason, the usage, or an error."""
        try:
            event = json.loads(content)
            if "error" in event:
                self._error = f"an error event: {_shown(content)}"
                return
            if usage := event.get("usage"):
                self._made = usage["completion_tokens"]
            for choice in event["choices"]:
                self.events += 1
                self._reason = choice.get("finish_reason") or self._reason
        except (ValueError, LookupError, TypeError, AttributeError):
            self._error = f"an event that is no completion: {_shown(content)}"
