"""The agent's own HTTP port: `/healthz` for the kubelet, `/metrics` for Prometheus, the traffic for observers."""

from __future__ import annotations

import time

from aiohttp import web

from holdfast.api.traffic import TRAFFIC_PATH
from holdfast_gateway.agent import Agent


def metrics(agent: Agent, now: float) -> str:
    """Prometheus's text format. An age is missing until there is one."""
    lines = [
        "# HELP holdfast_gateway_source_age_seconds Time since an API server's copy was known to be current.",
        "# TYPE holdfast_gateway_source_age_seconds gauge",
    ]
    for source in agent.sources:
        if (age := source.age()) is not None:
            lines.append(f'holdfast_gateway_source_age_seconds{{source="{source.name}"}} {age:.3f}')
    lines += [
        "# HELP holdfast_gateway_source_reachable Whether an API server can be read.",
        "# TYPE holdfast_gateway_source_reachable gauge",
        *(
            f'holdfast_gateway_source_reachable{{source="{source.name}"}} {int(source.reachable)}'
            for source in agent.sources
        ),
        "# HELP holdfast_gateway_route_problems Routes and Secrets that are broken or claim what is taken.",
        "# TYPE holdfast_gateway_route_problems gauge",
        f"holdfast_gateway_route_problems {len(agent.problems)}",
        "# HELP holdfast_gateway_writes_total Times that Envoy's files changed.",
        "# TYPE holdfast_gateway_writes_total counter",
        f"holdfast_gateway_writes_total {agent.writes}",
    ]
    if agent.written_at is not None:
        lines += [
            "# HELP holdfast_gateway_computed_age_seconds Time since Envoy's files were last computed.",
            "# TYPE holdfast_gateway_computed_age_seconds gauge",
            f"holdfast_gateway_computed_age_seconds {now - agent.written_at:.3f}",
        ]
    return "\n".join(lines) + "\n"


async def serve(agent: Agent, host: str, port: int) -> web.AppRunner:
    """Starts the port. Raises OSError if it is taken.

    It answers as long as the agent's event loop turns, also while no API server can be read: a restart would
    help nobody then.
    """

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(text=metrics(agent, time.monotonic()), content_type="text/plain")

    async def traffic(_: web.Request) -> web.Response:
        return web.json_response({key: each.wire() for key, each in agent.traffic.report().items()})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/metrics", scrape)
    app.router.add_get(TRAFFIC_PATH, traffic)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
