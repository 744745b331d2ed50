"""A server that answers completions like an engine behind a gateway of the region `us-east`, without a model."""

from __future__ import annotations

import asyncio
import json
import sys

from aiohttp import web

HEADERS = {"x-holdfast-region": "us-east"}
TOKEN_SECONDS = 0.005


async def complete(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    tokens = body["max_tokens"]
    usage = {"completion_tokens": tokens}
    if not body.get("stream"):
        await asyncio.sleep(tokens * TOKEN_SECONDS)
        choice = {"text": "a" * tokens, "finish_reason": "length"}
        return web.json_response({"choices": [choice], "usage": usage}, headers=HEADERS)
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    for number in range(1, tokens + 1):
        await asyncio.sleep(TOKEN_SECONDS)
        await send(response, {"choices": [{"text": "a", "finish_reason": "length" if number == tokens else None}]})
    await send(response, {"choices": [], "usage": usage})
    await response.write(b"data: [DONE]\n\n")
    return response


async def send(response: web.StreamResponse, event: dict[str, object]) -> None:
    await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


async def health(_: web.Request) -> web.Response:
    return web.Response()


app = web.Application()
app.add_routes([web.post("/v1/completions", complete), web.get("/health", health)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, reuse_address=True)
