"""Sends one request or one stream to an OpenAI-compatible server and turns what comes back into a record."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from .answer import StreamReader, request_error
from .records import RequestRecord, StreamRecord
from .schedule import Arrival

REGION_HEADER = "x-holdfast-region"
"""On an answer of a Holdfast gateway: the region whose engine gave it."""
REQUEST_SECONDS = 30.0
"""A whole answer must have arrived by then, counted from the sending."""
SILENCE_SECONDS = 30.0
"""A stream that brings nothing for this long is given up."""


@dataclass(frozen=True)
class LoadSpec:
    """What load to generate, and where."""

    url: str
    """The server, with or without `/v1` at the end."""
    model: str
    rate: float = 50.0
    """Requests per second, streams not counted."""
    seconds: float = 60.0
    """How long requests and streams are started; those that run then are waited for."""
    streams: int = 10
    """Streams in flight at every moment."""
    seed: int = 0
    ignore_eos: bool = True
    """Ask for exactly the planned number of tokens (vLLM's extension, which Holdfast's engines have too)."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request, such as `Authorization`."""

    @property
    def endpoint(self) -> str:
        """Where completions are asked for."""
        return self.url.rstrip("/").removesuffix("/v1") + "/v1/completions"


class Client:
    """Asks one server; times are seconds since `start`, a moment of `time.monotonic()`."""

    def __init__(self, session: aiohttp.ClientSession, spec: LoadSpec, start: float) -> None:
        self._session = session
        self._spec = spec
        self._start = start
        self._request_timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        self._stream_timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=SILENCE_SECONDS)

    def now(self) -> float:
        """Seconds since the load's start."""
        return time.monotonic() - self._start

    async def request(self, name: str, arrival: Arrival) -> RequestRecord:
        """Ask for one whole answer, now."""
        sent, region = self.now(), ""
        try:
            async with self._post(name, self._body(arrival.prompt, arrival.tokens), self._request_timeout) as response:
                region = response.headers.get(REGION_HEADER, "")
                body = await response.read()
                error = request_error(response.status, body, arrival.tokens, self._spec.ignore_eos)
        except (aiohttp.ClientError, OSError, TimeoutError) as problem:
            error = described(problem)
        return RequestRecord(name, arrival.at, sent, self.now(), arrival.tokens, region, error)

    async def stream(self, name: str, tokens: int, prompt: str) -> StreamRecord:
        """Ask for one stream, now, and read it to its end."""
        started, region, cut = self.now(), "", ""
        reader = StreamReader(tokens, self._spec.ignore_eos)
        body = {**self._body(prompt, tokens), "stream": True, "stream_options": {"include_usage": True}}
        try:
            async with self._post(name, body, self._stream_timeout) as response:
                region = response.headers.get(REGION_HEADER, "")
                if response.status == 200:
                    while data := await response.content.readany():
                        reader.feed(data)
                else:
                    cut = request_error(response.status, await response.read(), tokens, False)
        except (aiohttp.ClientError, OSError, TimeoutError) as problem:
            cut = described(problem)
        outcome, error = reader.outcome(cut)
        return StreamRecord(name, started, self.now(), tokens, reader.events, region, outcome, error)

    def _body(self, prompt: str, tokens: int) -> dict[str, Any]:
        body = {"model": self._spec.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        return {**body, "ignore_eos": True} if self._spec.ignore_eos else body

    def _post(self, name: str, body: dict[str, Any], timeout: aiohttp.ClientTimeout) -> Any:
        return self._session.post(self._spec.endpoint, json=body, headers={"x-request-id": name}, timeout=timeout)


def described(problem: BaseException) -> str:
    """An exception in words that are the same for the same cause."""
    if isinstance(problem, aiohttp.ClientConnectorError):
        return f"no connection: {problem.strerror}"
    if isinstance(problem, TimeoutError):
        return "no answer in time" if not str(problem) else f"no answer in time: {problem}"
    return f"{type(problem).__name__}: {problem}".rstrip(": ")
