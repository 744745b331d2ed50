"""Messages between the CPU engine's HTTP process and the one that owns its pipeline, and their framing. Pure but for
`Channel`.

The two are separate processes because OpenVINO GenAI holds Python's global lock during a whole generation
step: in one process a long or hanging step would silence the health endpoints and the watchdog too. Each
message is one frozen dataclass, sent as a 4-byte big-endian length and a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import struct
from dataclasses import dataclass, field
from typing import get_args

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True)
class WorkerConfig:
    """What the pipeline is started with. Sizes in GiB and tokens, times in seconds."""

    model: str
    max_model_len: int | None = None
    max_num_seqs: int = 64
    cache_size_gib: int = 1
    threads: int = 1
    step_interval: float = 0.0
    prefix_caching: bool = False


@dataclass(frozen=True)
class Add:
    """Start a request. Exactly one of `text`, `token_ids` and `messages` is given."""

    id: int
    sampling: dict[str, object]
    text: str | None = None
    token_ids: list[int] | None = None
    messages: list[dict[str, str]] | None = None


@dataclass(frozen=True)
class Cancel:
    id: int


@dataclass(frozen=True)
class Rest:
    """Fall asleep or awake; see `holdfast_engine.port.Engine.rest`."""

    asleep: bool


@dataclass(frozen=True)
class Resting:
    """It fell asleep, or awoke."""

    asleep: bool


@dataclass(frozen=True)
class Loaded:
    """The model is in memory. `control` are the ids of tokens without text."""

    pieces: list[str]
    control: list[int]
    kind: str
    max_model_len: int


@dataclass(frozen=True)
class Ready:
    """The warm-up generation succeeded."""


@dataclass(frozen=True)
class Accepted:
    id: int
    prompt_ids: list[int]


@dataclass(frozen=True)
class Rejected:
    """The request cannot run; `code` is OpenAI's error code, `status` the HTTP status."""

    id: int
    status: int
    code: str
    message: str


@dataclass(frozen=True)
class Progress:
    """One generation step. `outputs`: (id, new token ids, finish reason or None) of requests with news; `logprobs`: of
    the same tokens, for requests that asked for them."""

    outputs: list[tuple[int, list[int], str | None]] = field(default_factory=list)
    logprobs: list[tuple[int, list[float]]] = field(default_factory=list)
    cache_usage: float | None = None
    """Fraction of the KV cache in use; None = as before."""


@dataclass(frozen=True)
class Failed:
    """The generation loop is over."""

    message: str


Message = Add | Cancel | Rest | Resting | Loaded | Ready | Accepted | Rejected | Progress | Failed
_KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    body = json.dumps([type(message).__name__, vars(message)], separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Message:
    kind, fields = json.loads(body)
    return _KINDS[kind](**fields)


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None when the other side is gone."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return decode(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class Channel:
    """The pipeline process's end: blocking, used by one thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()

    def send(self, message: Message) -> None:
        self._socket.sendall(encode(message))

    def receive(self, timeout: float | None) -> list[Message]:
        """All messages that are there; waits up to `timeout` seconds (None = for ever) for the first.

        Raises EOFError when the HTTP process is gone.
        """
        while not (messages := self._complete()):
            ready, _, _ = select.select([self._socket], [], [], timeout)
            if not ready:
                return []
            self._fill()
        while select.select([self._socket], [], [], 0)[0]:
            self._fill()
        return messages + self._complete()

    def _fill(self) -> None:
        chunk = self._socket.recv(1 << 20)
        if not chunk:
            raise EOFError("the HTTP process is gone")
        self._buffer += chunk

    def _complete(self) -> list[Message]:
        messages = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages.append(decode(bytes(self._buffer[_LENGTH.size : end])))
            del self._buffer[:end]
        return messages
