"""What a region's gateway tells observers of its engines, with a real Envoy in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from tests.integration.gateway.bed import Bed, Gateway, free_port

from holdfast.api import names
from holdfast.api.traffic import TRAFFIC_PATH, ServiceTraffic
from holdfast_gateway import status
from holdfast_gateway.agent import Agent

pytestmark = pytest.mark.integration
PROBE = {names.PROBE_HEADER: "1"}
DEADLINE = 30.0


@asynccontextmanager
async def watched(bed: Bed, region: str) -> AsyncIterator[aiohttp.ClientSession]:
    """The part of the agent that follows the traffic, at work beside a gateway."""
    gateway = bed.gateways[region]
    agent = Agent(gateway.directory, gateway.options, [], asyncio.Event())
    agent.snapshot = bed.snapshot(region)
    runner = await status.serve(agent, gateway.options.listen, gateway.options.status_port)
    following = asyncio.create_task(agent.traffic.run())
    try:
        await first_look(agent)
        async with aiohttp.ClientSession() as session:
            yield session
    finally:
        following.cancel()
        await runner.cleanup()


async def first_look(agent: Agent) -> None:
    """What ended before it is not counted."""
    while True:
        if any(each.counts for each in agent.traffic._histories.values()):
            return
        await asyncio.sleep(0.05)


async def traffic(session: aiohttp.ClientSession, gateway: Gateway) -> ServiceTraffic | None:
    """As an observer reads it."""
    async with session.get(gateway.peer_url + TRAFFIC_PATH, headers=PROBE) as answer:
        found = (await answer.json()).get("default/chat") if answer.status == 200 else None
    return found and ServiceTraffic.parse(found)


async def until(
    session: aiohttp.ClientSession, gateway: Gateway, what: str, check: Callable[[ServiceTraffic], Any]
) -> ServiceTraffic:
    end = asyncio.get_running_loop().time() + DEADLINE
    while True:
        found = await traffic(session, gateway)
        if found and check(found):
            return found
        assert asyncio.get_running_loop().time() < end, f"waited in vain for: {what}; last: {found}"
        await asyncio.sleep(0.1)


async def ask(session: aiohttp.ClientSession, gateway: Gateway, probe: bool = False, **body: Any) -> int:
    """One request at the peer port, as a gateway sends it on, or as an observer does."""
    headers = {names.SERVICE_HEADER: "default/chat"} | (PROBE if probe else {})
    async with session.post(f"{gateway.peer_url}/v1/completions", json=body, headers=headers) as answer:
        await answer.read()
        return answer.status


async def test_users_requests_and_their_failures_are_counted_and_probes_are_not(make_bed: Callable[..., Bed]) -> None:
    bed = make_bed(regions={"us": 1}, timing={"status_port": free_port()})
    bed.start(edge=False)
    gateway = bed.gateways["us"]
    async with watched(bed, "us") as session:
        for _ in range(4):
            assert await ask(session, gateway, status=200) == 200
            assert await ask(session, gateway, probe=True, status=500) == 500
        assert await ask(session, gateway, status=429) == 429
        for _ in range(3):
            assert await ask(session, gateway, status=500) == 500

        seen = await until(session, gateway, "all requests", lambda seen: seen.requests >= 8)
        assert (seen.requests, seen.errors) == (8, 3)


async def test_an_engine_that_has_requests_and_generates_nothing_is_seen_silent(make_bed: Callable[..., Bed]) -> None:
    bed = make_bed(regions={"us": 1}, timing={"status_port": free_port()})
    bed.start(edge=False)
    gateway = bed.gateways["us"]
    async with watched(bed, "us") as session:
        busy = asyncio.create_task(ask(session, gateway, seconds=4))
        seen = await until(session, gateway, "requests", lambda seen: seen.silent_seconds is not None)
        most = seen.silent_seconds or 0.0
        while not busy.done():
            found = await traffic(session, gateway)
            most = max(most, (found and found.silent_seconds) or 0.0)
            await asyncio.sleep(0.1)
        assert most < 2.0, "an engine that generates was seen silent"

        hung = asyncio.create_task(ask(session, gateway, seconds=6, hang=True))
        await until(session, gateway, "silence", lambda seen: (seen.silent_seconds or 0.0) > 3.0)
        await hung
        await until(session, gateway, "the end of it", lambda seen: seen.silent_seconds is None)


async def test_without_an_agent_the_traffic_is_unknown_and_requests_are_served(make_bed: Callable[..., Bed]) -> None:
    bed = make_bed(regions={"us": 1}, timing={"status_port": free_port()})
    bed.start(edge=False)
    gateway = bed.gateways["us"]
    async with aiohttp.ClientSession() as session:
        assert await traffic(session, gateway) is None
        assert await ask(session, gateway) == 200
