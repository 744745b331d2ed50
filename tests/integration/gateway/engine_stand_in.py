"""A small engine as a process of its own: answers after as many seconds as the request asks for.

Run by granian, which speaks HTTP/2 without TLS; `HOLDFAST_ENGINE` is the name it answers with.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

NAME = os.environ.get("HOLDFAST_ENGINE", "engine")
STATE = {"health": 200}
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """An ASGI application: `/health`, `/set-health?STATUS`, and a JSON answer to everything else."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/health":
        await answer(send, STATE["health"], {})
        return
    if scope["path"] == "/set-health":
        STATE["health"] = int(scope["query_string"])
        await answer(send, 200, {})
        return
    request = json.loads(await read(receive) or b"{}")
    await asyncio.sleep(float(request.get("seconds", 0)))
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    seen = {"engine": NAME, "path": scope["path"], "headers": headers, "size": len(request.get("prompt", ""))}
    await answer(send, int(request.get("status", 200)), seen)


async def read(receive: Receive) -> bytes:
    """The whole body."""
    body = b""
    while True:
        event = await receive()
        body += event.get("body", b"")
        if not event.get("more_body"):
            return body


async def answer(send: Send, status: int, body: dict[str, Any]) -> None:
    """A JSON answer."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
