"""The port of a process beside Envoy for the kubelet and Prometheus: `/healthz` while it turns, `/metrics`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST


@asynccontextmanager
async def serving(metrics: Callable[[], bytes], address: str, port: int) -> AsyncIterator[None]:
    """Serves for as long as the body lasts, on no port where it is 0; `metrics` gives Prometheus's text format. Raises
    OSError if the port is taken."""
    if not port:
        yield
        return

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"content-type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/metrics", scrape)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
        yield
    finally:
        await runner.cleanup()
