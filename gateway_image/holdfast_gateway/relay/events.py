"""Server-sent events out of bytes that come in pieces of any size, and back. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from holdfast_gateway.relay.failure import Reason, UpstreamFailure

Json = dict[str, Any]
DONE = "[DONE]"
DONE_EVENT = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
MAX_EVENT_BYTES = 4 * 1024 * 1024
"""A prompt's token ids come in one event: about 8 bytes each."""
_END = re.compile(rb"\r?\n\r?\n")
_LONGEST_END = 4
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Event:
    """One event as it came, with its end; `data` None: a comment."""

    raw: bytes
    data: str | None


class EventReader:
    """Finds complete events; what is incomplete waits."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0

    @property
    def waiting_bytes(self) -> int:
        """Size of the event that is not complete yet."""
        return len(self._rest)

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that are complete now, in turn; raises UpstreamFailure where what follows is no event stream."""
        self._rest += data
        searched, self._searched = self._searched, 0
        while end := _END.search(self._rest, searched):
            raw = bytes(self._rest[: end.end()])
            del self._rest[: end.end()]
            searched = 0
            if raw.strip():
                yield Event(raw, _data(raw))
        self._searched = max(0, len(self._rest) - _LONGEST_END)
        if len(self._rest) > MAX_EVENT_BYTES:
            raise UpstreamFailure(Reason.MALFORMED, f"an event is longer than {MAX_EVENT_BYTES} bytes")


def _data(raw: bytes) -> str | None:
    try:
        lines = raw.decode().splitlines() if b"\r" in raw else raw.decode().split("\n")
    except UnicodeDecodeError as error:
        raise UpstreamFailure(Reason.MALFORMED, "an event is not UTF-8") from error
    data = [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]
    return "\n".join(data) if data else None


def event(content: Json) -> bytes:
    """One event."""
    try:
        text = _encode(content).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: only an escape can say it
        text = json.dumps(content, separators=(",", ":")).encode()
    return b"data: " + text + b"\n\n"


def comment(text: str) -> bytes:
    """A line that every client ignores."""
    return f": {text}\n\n".encode()


def error_event(message: str, code: str) -> bytes:
    """A stream's end that is none: an error in OpenAI's form, which is not followed by [DONE]."""
    return event({"error": {"message": message, "type": "server_error", "param": None, "code": code}})
