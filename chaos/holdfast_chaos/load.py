"""Generates open-loop load: requests leave on schedule, whether or not earlier ones were answered.

Beside them a fixed number of streams is kept in flight. Runs in a process of its own (`worker`), so that nothing
else holds up its event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp

from .client import Client, LoadSpec
from .records import Record, StreamOutcome
from .schedule import Arrival, plan_arrivals, stream_plan

Emit = Callable[[Record], None]

LEAD_SECONDS = 0.2
"""From the start of `generate` to the load's zero; the session is ready by then."""
RETRY_SECONDS = 0.25
"""Pause of a slot whose stream never began, so that a dead server is not stormed."""


async def generate(
    spec: LoadSpec, begin: Callable[[float], None], emit: Emit, enough: asyncio.Event | None = None
) -> None:
    """Generate the load and emit a record for everything that ends.

    `begin` is told the load's zero on `time.monotonic()`. Once `enough` is set nothing more is sent. Returns when the
    last answer has ended.
    """
    enough = enough or asyncio.Event()
    start = time.monotonic() + LEAD_SECONDS
    begin(start)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=dict(spec.headers),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
    ) as session:
        client = Client(session, spec, start)
        async with asyncio.TaskGroup() as tasks:
            for slot in range(spec.streams):
                tasks.create_task(_keep_streaming(client, spec, slot, emit, enough))
            await _send_requests(client, spec, tasks, emit, enough)


async def _send_requests(
    client: Client, spec: LoadSpec, tasks: asyncio.TaskGroup, emit: Emit, enough: asyncio.Event
) -> None:
    for number, arrival in enumerate(plan_arrivals(spec.rate, spec.seconds, spec.seed)):
        if (pause := arrival.at - client.now()) > 0:
            await asyncio.sleep(pause)
        if enough.is_set():
            return
        tasks.create_task(_send_request(client, f"load-{spec.seed}-{number}", arrival, emit))


async def _send_request(client: Client, name: str, arrival: Arrival, emit: Emit) -> None:
    emit(await client.request(name, arrival))


async def _keep_streaming(client: Client, spec: LoadSpec, slot: int, emit: Emit, enough: asyncio.Event) -> None:
    """One stream after the other until the time is over."""
    await asyncio.sleep(max(0.0, -client.now()))
    for number, (tokens, prompt) in enumerate(stream_plan(spec.seed, slot)):
        if client.now() >= spec.seconds or enough.is_set():
            return
        record = await client.stream(f"stream-{spec.seed}-{slot}-{number}", tokens, prompt)
        emit(record)
        if record.outcome is StreamOutcome.FAILED:
            await asyncio.sleep(RETRY_SECONDS)
