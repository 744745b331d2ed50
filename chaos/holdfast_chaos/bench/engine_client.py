"""Streams from one engine, asked for at once: raw sockets, so that the client takes little of the cores it shares."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from typing import Any

from .benchmark import BenchError

DONE = b"data: [DONE]\n\n"
MODEL = "tiny"


async def _stream(port: int, body: bytes) -> tuple[float, float]:
    """Seconds to the first token and to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        begun = time.perf_counter()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: engine\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        first, answer = 0.0, b""
        while DONE not in answer[-64:]:
            if not (piece := await reader.read(1 << 16)):
                raise BenchError(f"The engine ended its answer too early; it said: {answer[-300:]!r}")
            answer = answer[-128:] + piece
            first = first or time.perf_counter() - begun
        return first, time.perf_counter() - begun
    finally:
        writer.close()


def streams(port: int, count: int, **fields: Any) -> tuple[list[float], float]:
    """Ask for `count` streams at once: seconds to each one's first token, and until all were complete."""
    body = {"model": MODEL, "temperature": 0, "ignore_eos": True, "stream": True, **fields}

    async def together() -> tuple[list[float], float]:
        begun = time.perf_counter()
        found = await asyncio.gather(*(_stream(port, json.dumps(body).encode()) for _ in range(count)))
        return [first for first, _ in found], time.perf_counter() - begun

    return asyncio.run(together())


def state(port: int) -> str:
    """What the engine's /progress calls its state; empty when it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=5) as answer:
            return str(json.load(answer)["state"])
    except OSError:
        return ""
