"""Reads many streams at once over raw sockets, for a while, and tells how many tokens came and how long they took."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .benchmark import BenchError

TOKEN = re.compile(rb'"content": ?"(\d+\.\d+) "')
"""A token of `stream_stand_in`: its text is when it was sent."""
DONE = b"[DONE]"
OPEN_SECONDS = 30.0
"""How long to wait for the first token of all streams, or for the last."""

Address = tuple[str, int]
Cpu = Callable[[], tuple[float, ...]]


@dataclass(frozen=True)
class Window:
    """What came in a span of time, on all streams together."""

    tokens: int
    seconds: float
    cpu: tuple[float, ...]
    """Seconds of processor time, by process."""
    delays: tuple[float, ...]
    """Seconds from the sending of each token to its arrival."""
    head: bytes
    """Of one of the answers."""


class Tokens:
    """Finds tokens in the bytes of one stream, wherever they are cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[float]:
        """When each token that is complete now was sent."""
        data = self._rest + data
        found = list(TOKEN.finditer(data))
        self._rest = data[max(found[-1].end() if found else 0, len(data) - 64) :]
        return [float(each[1]) for each in found]


class _Stream(asyncio.Protocol):
    """One stream."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._tokens = Tokens()
        loop = asyncio.get_running_loop()
        self.began: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.head = b""
        self._tail = b""
        self.count = 0
        self.delays: list[float] = []
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        sent = self._tokens.feed(data)
        self.count += len(sent)
        self.delays += [now - each for each in sent]
        if not self.began.done():
            self.head += data
            if sent:
                self.began.set_result(None)
        if not self.ended.done():
            self._tail = self._tail[-len(DONE) :] + data
            if DONE in self._tail:
                self.ended.set_result(None)

    def connection_lost(self, _error: Exception | None) -> None:
        for each in (self.began, self.ended):
            if not each.done():
                each.set_exception(BenchError(f"A stream ended too early: {self.head[:300]!r}"))
                each.exception()  # looked at, also if nobody waits for it


def request(path: str, model: str, tokens: int, pause: float = 0.0, seconds: float = OPEN_SECONDS) -> bytes:
    """Asks the stand-in for a stream; greedy, so that the relay keeps it."""
    said = [{"role": "user", "content": f"{pause} {seconds}"}]
    asked = {"model": model, "messages": said, "stream": True, "temperature": 0, "max_tokens": tokens}
    body = json.dumps(asked).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def read(address: Address, asked: bytes, count: int, seconds: float, cpu: Cpu) -> Window:
    """Open so many streams, and from the first token of the last of them read for so long. Raises BenchError."""
    return asyncio.run(_bounded(address, _read(address, asked, count, seconds, cpu)))


def exhaust(address: Address, asked: bytes, count: int, seconds: float, cpu: Cpu) -> Window:
    """Open so many streams and read them to their ends, again and again until so long is over. Raises BenchError."""
    return asyncio.run(_bounded(address, _exhaust(address, asked, count, seconds, cpu)))


async def _bounded(address: Address, work: Coroutine[None, None, Window]) -> Window:
    try:
        return await work
    except (OSError, TimeoutError) as error:
        raise BenchError(
            f"Streams from port {address[1]} did not come: {str(error) or f'not within {OPEN_SECONDS:g} s'}."
        ) from error


async def _read(address: Address, asked: bytes, count: int, seconds: float, cpu: Cpu) -> Window:
    async with _open(address, asked, count) as streams:
        await _all(each.began for each in streams)
        for stream in streams:
            stream.count, stream.delays = 0, []
        used, begun = cpu(), time.monotonic()
        await asyncio.sleep(seconds)
        return _window(streams, time.monotonic() - begun, used, cpu())


async def _exhaust(address: Address, asked: bytes, count: int, seconds: float, cpu: Cpu) -> Window:
    used, begun = cpu(), time.monotonic()
    read: list[_Stream] = []
    while not read or time.monotonic() - begun < seconds:
        async with _open(address, asked, count) as streams:
            await _all(each.ended for each in streams)
            read += streams
    return _window(read, time.monotonic() - begun, used, cpu())


@asynccontextmanager
async def _open(address: Address, asked: bytes, count: int) -> AsyncIterator[list[_Stream]]:
    loop = asyncio.get_running_loop()
    streams: list[_Stream] = []
    try:
        for _ in range(count):
            _, stream = await loop.create_connection(lambda: _Stream(asked), *address)
            streams.append(stream)
        yield streams
    finally:
        for stream in streams:
            stream.transport.abort()


async def _all(moments: Iterable[asyncio.Future[None]]) -> None:
    async with asyncio.timeout(OPEN_SECONDS):
        await asyncio.gather(*moments)


def _window(streams: Sequence[_Stream], seconds: float, used: tuple[float, ...], spent: tuple[float, ...]) -> Window:
    return Window(
        sum(stream.count for stream in streams),
        seconds,
        tuple(after - before for before, after in zip(used, spent, strict=True)),
        tuple(delay for stream in streams for delay in stream.delays),
        streams[0].head,
    )
