"""Running agents for the tests that watch what they write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from kubernetes.aio import client
from tests.integration.gateway.api_stand_in import ApiStandIn

from holdfast.mirror import Pace
from holdfast_gateway.agent import Agent
from holdfast_gateway.files import initialise
from holdfast_gateway.options import Auth, Options, Role
from holdfast_gateway.sources import source

QUICK = Pace(list_timeout=2, watch=1, watch_grace=0.5, relist=3600, retry_first=0.05, retry_most=0.1)


@asynccontextmanager
async def agent_of(directory: Path, role: Role, *servers: ApiStandIn, auth: Auth = Auth.NONE) -> AsyncIterator[Agent]:
    """A running agent."""
    changed = asyncio.Event()
    options = Options(role=role, auth=auth)
    initialise(directory, options)
    async with AsyncExitStack() as stack:
        sources = []
        for number, server in enumerate(servers):
            api = await stack.enter_async_context(client.ApiClient(client.Configuration(host=server.url)))
            sources.append(source(f"region-{number}", client.CoreV1Api(api), options, changed, QUICK))
        agent = Agent(directory, options, sources, changed)
        working = asyncio.create_task(agent.run())
        try:
            yield agent
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Polls until the condition holds; AssertionError after a generous time."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is awaited is outside of this program
            await asyncio.sleep(0.02)
    assert condition(), what
