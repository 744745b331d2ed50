"""A small engine as a process of its own: answers after as many seconds as the request asks for.

Run by granian, which speaks HTTP/2 without TLS; `HOLDFAST_ENGINE` is the name it answers with.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

NAME = os.environ.get("HOLDFAST_ENGINE", "engine")
STATE = {"health": 200, "running": 0, "tokens": 0, "begun": 0, "cancelled": 0}
SLOW = {"seconds": 0.0}
"""How much longer each answer takes."""
TOKEN_SECONDS = 0.05
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """An ASGI application: `/health`, `/set-health?STATUS`, `/set-slow?SECONDS`, `/state`, `/metrics`, and a JSON
    answer to everything else."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/health":
        await answer(send, STATE["health"], {})
        return
    if scope["path"] == "/set-health":
        STATE["health"] = int(scope["query_string"])
        await answer(send, 200, {})
        return
    if scope["path"] == "/set-slow":
        SLOW["seconds"] = float(scope["query_string"])
        await answer(send, 200, {})
        return
    if scope["path"] == "/state":
        await answer(send, 200, dict(STATE))
        return
    if scope["path"] == "/metrics":
        await answer(send, 200, text=metrics())
        return
    request = json.loads(await read(receive) or b"{}")
    if request.get("events"):
        await stream(send, request["events"], float(request.get("pause", 0)))
        return
    seconds = float(request.get("seconds", 0)) + SLOW["seconds"]
    if not await unless_left(generate(seconds, hang=bool(request.get("hang"))), receive):
        return
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    seen = {
        "engine": NAME,
        "model": request.get("model"),
        "path": scope["path"],
        "headers": headers,
        "size": len(request.get("prompt", "")),
        "large": "x" * int(request.get("large", 0)),
    }
    await answer(send, int(request.get("status", 200)), seen | request.get("say", {}))


async def stream(send: Send, events: list[str], pause: float) -> None:
    """These bytes as an event stream, with so many seconds after each."""
    head = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    for each in events:
        await send({"type": "http.response.body", "body": each.encode(), "more_body": True})
        await asyncio.sleep(pause)
    await send({"type": "http.response.body", "body": b""})


async def unless_left(work: Coroutine[Any, Any, None], receive: Receive) -> bool:
    """Does the work; drops it when the client leaves. Returns whether it is done."""
    STATE["begun"] += 1
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left(receive))
    await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if working.done():
        return True
    STATE["cancelled"] += 1
    working.cancel()
    return False


async def left(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def generate(seconds: float, hang: bool) -> None:
    """A token now and then; an engine that hangs has the request and generates none."""
    STATE["running"] += 1
    try:
        for _ in range(int(seconds / TOKEN_SECONDS)):
            await asyncio.sleep(TOKEN_SECONDS)
            STATE["tokens"] += not hang
        await asyncio.sleep(seconds % TOKEN_SECONDS)
    finally:
        STATE["running"] -= 1


def metrics() -> str:
    """As vLLM says them."""
    return (
        "# TYPE vllm:num_requests_running gauge\n"
        f'vllm:num_requests_running{{model_name="llama"}} {STATE["running"]}.0\n'
        "# TYPE vllm:generation_tokens counter\n"
        f'vllm:generation_tokens_total{{model_name="llama"}} {STATE["tokens"]}.0\n'
    )


async def read(receive: Receive) -> bytes:
    """The whole body."""
    body = b""
    while True:
        event = await receive()
        body += event.get("body", b"")
        if not event.get("more_body"):
            return body


async def answer(send: Send, status: int, body: dict[str, Any] | None = None, text: str | None = None) -> None:
    """A JSON answer, or a text."""
    headers = [(b"content-type", b"application/json" if text is None else b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": (json.dumps(body) if text is None else text).encode()})
