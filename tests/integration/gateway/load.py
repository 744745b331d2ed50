"""Open-loop load: requests leave on schedule, whether or not earlier ones were answered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp


@dataclass(frozen=True)
class Outcome:
    """How one request ended."""

    status: int
    """0 if there was no answer."""
    seconds: float
    region: str
    detail: str


@dataclass(frozen=True)
class Load:
    """A schedule: `rate` requests a second for `seconds`; engines take `answers` seconds, in turn."""

    rate: float = 50
    seconds: float = 2.5
    answers: tuple[float, ...] = (0.02, 1.2)
    key: str = ""
    """The API key that requests show; empty for none."""


async def send_load(url: str, load: Load, fault: Callable[[], None] | None = None, at: float = 1.0) -> list[Outcome]:
    """Sends the load and meanwhile, `at` seconds after its start, injects the fault."""
    timeout = aiohttp.ClientTimeout(total=60)
    headers = {"x-api-key": load.key} if load.key else {}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, headers=headers) as session:
        start = time.monotonic()
        count = int(load.rate * load.seconds)
        requests = [
            asyncio.create_task(send_at(session, url, start + number / load.rate, answer_of(load, number)))
            for number in range(count)
        ]
        if fault is not None:
            await asyncio.sleep(at)
            fault()
        return list(await asyncio.gather(*requests))


def answer_of(load: Load, number: int) -> float:
    """How long the engine shall take for a request."""
    return load.answers[number % len(load.answers)]


async def send_at(session: aiohttp.ClientSession, url: str, moment: float, answer: float) -> Outcome:
    """One request at its moment."""
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
    start = time.monotonic()
    try:
        body = {"model": "llama", "seconds": answer}
        async with session.post(f"{url}/v1/completions", json=body) as response:
            text = await response.text()
            region = response.headers.get("x-holdfast-region", "")
            return Outcome(response.status, time.monotonic() - start, region, text)
    except (aiohttp.ClientError, TimeoutError) as error:
        return Outcome(0, time.monotonic() - start, "", repr(error))


def failed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Requests without a good answer."""
    return [outcome for outcome in outcomes if outcome.status != 200]


def summary(outcomes: Sequence[Outcome]) -> str:
    """One line for people: counts and the slowest."""
    slowest = max(outcome.seconds for outcome in outcomes)
    regions = dict(Counter(outcome.region for outcome in outcomes))
    return f"{len(failed(outcomes))} of {len(outcomes)} failed, slowest {slowest:.2f} s, by region {regions}"
