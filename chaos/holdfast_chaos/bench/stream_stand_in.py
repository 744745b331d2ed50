"""An engine that computes nothing but streams tokens: as fast as they are taken, or one after each pause.

The request's last message says how: `PAUSE SECONDS`, the pause before each token and how long to go on at most; its
`max_tokens` says how many there are. Every token's text is the moment of its sending on the machine's monotonic clock,
by which a client knows how long it was on its way.
Token ids come with every chunk, as the relay needs them. Run by granian as a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

FRAME = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1, "model": "bench"}
DONE = b"data: [DONE]\n\n"


def event(delta: dict[str, str], reason: str | None = None, **more: Any) -> str:
    """One chunk of the answer."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason, "token_ids": [7]}
    return f"data: {json.dumps({**FRAME, 'choices': [choice], **more}, separators=(',', ':'))}\n\n"


FIRST = event({"role": "assistant", "content": ""}, prompt_token_ids=[1, 2, 3]).encode()
TOKEN = event({"content": "@"})
LAST = event({}, "length").encode()


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """An ASGI application."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if not body:  # a health check
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    asked = json.loads(body)
    pause, seconds = map(float, asked["messages"][-1]["content"].split())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    gone = asyncio.ensure_future(receive())
    try:
        await _generate(send, pause, time.monotonic() + seconds, int(asked["max_tokens"]), gone)
    finally:
        gone.cancel()


async def _generate(
    send: Send, pause: float, end: float, tokens: int, gone: asyncio.Future[dict[str, Any]]
) -> None:  # fmt: skip
    await _give(send, FIRST)
    due = time.monotonic()
    for _ in range(tokens):
        if gone.done() or (now := time.monotonic()) > end:
            break
        due += pause
        await asyncio.sleep(max(0.0, due - now))
        await _give(send, TOKEN.replace("@", f"{time.monotonic():.6f} ", 1).encode())
    await _give(send, LAST)
    await send({"type": "http.response.body", "body": DONE})


async def _give(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
