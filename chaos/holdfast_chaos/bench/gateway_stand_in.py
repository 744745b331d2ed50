"""A region's gateway with healthy engines behind it, as an observer sees them; it can be told to stop generating.

Run by granian as a process of its own, so that hundreds of probes a second cost the benchmark's process nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

HANG, RECOVER = "/stand-in/hang", "/stand-in/recover"
COMPLETIONS = "/v1/completions"
HUNG_SECONDS = 30.0
"""Longer than any observer waits for a token."""

_generates = asyncio.Event()
_generates.set()


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """An ASGI application."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    status = 200
    if scope["path"] == HANG:
        _generates.clear()
    elif scope["path"] == RECOVER:
        _generates.set()
    elif scope["path"] == COMPLETIONS:
        try:
            await asyncio.wait_for(_generates.wait(), HUNG_SECONDS)
        except TimeoutError:
            status = 503
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
