"""Stands in for everything behind the relay: answers each request as the test has scripted it for that region."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from holdfast_gateway.render.values import PEER_HEADER, REGION_HEADER

Script = Callable[[web.Request], Awaitable[web.StreamResponse]]
FIRST = "us"
"""The region that is asked when the relay names none."""


@dataclass
class Outbound:
    """Scripts by region, used one after the other, the last again and again."""

    scripts: dict[str, list[Script]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Region and request's body, in order."""
    headers: list[dict[str, str]] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    async def start(self, address: str, port: int) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, address, port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        region = request.headers.get(PEER_HEADER, f"peer/{FIRST}").removeprefix("peer/")
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "llama", "max_model_len": 50}]})
        self.asked.append((region, json.loads(await request.read() or b"{}")))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        scripts = self.scripts[region]
        return await (scripts.pop(0) if len(scripts) > 1 else scripts[0])(request)


def chunk(text: str, ids: Sequence[int], reason: str | None = None, prompt: Sequence[int] | None = None) -> bytes:
    """One event of a completion."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason, "token_ids": list(ids)}
    more = {} if prompt is None else {"prompt_token_ids": list(prompt)}
    frame = {"id": "x", "object": "text_completion", "created": 1, "model": "llama"}
    return b"data: " + json.dumps({**frame, "choices": [{**choice, **more}]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def stream(*parts: bytes | float, region: str = FIRST, end: str = "close", **headers: str) -> Script:
    """A stream: bytes are sent, numbers are seconds of silence. `end`: `close`; `reset` the connection; `hang`. In the
    names of headers `_` stands for `-`."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", REGION_HEADER: region, **more})
        await response.prepare(request)
        for part in parts:
            if isinstance(part, bytes):
                await response.write(part)
            else:
                await asyncio.sleep(part)
        if end == "hang":
            await asyncio.Event().wait()
        if end == "reset" and request.transport is not None:
            request.transport.abort()
        return response

    return answer


def refusal(status: int, body: bytes = b'{"error": {"message": "full"}}', **headers: str) -> Script:
    """An answer that is no stream."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={"content-type": "application/json", **headers})

    return answer


async def lost(_: web.Request) -> web.StreamResponse:
    """No answer: the connection breaks."""
    assert _.transport is not None
    _.transport.abort()
    return web.Response()


async def flood(request: web.Request) -> web.StreamResponse:
    """As much as is taken, for ever; how much that was is in the application's key `flooded`."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream", REGION_HEADER: FIRST})
    await response.prepare(request)
    await response.write(chunk("a", [1], prompt=[1]))
    while True:
        await response.write(chunk("a" * 10_000, [1]))
        flooded["bytes"] += 10_000


flooded = {"bytes": 0}
