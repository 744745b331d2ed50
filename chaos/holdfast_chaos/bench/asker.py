"""The closed-loop client as a process of its own: asks every way in turn and prints one JSON line per turn.

Its standard input is a `Plan` as JSON. A turn asks one way with a fixed number of requests in flight; ways alternate
within a round, each round begins with another one, so that what changes on the machine meets all alike.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp
import numpy as np
import psutil

WARM_UP_SECONDS = 0.3
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Target:
    """A way to ask: its name, its URL and the processes whose time it uses."""

    name: str
    url: str
    proxies: Sequence[int]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What to ask, how often."""

    targets: Sequence[Target]
    body: str
    in_flight: Sequence[int]
    """Numbers of requests in flight; every way gets a turn with each."""
    rounds: int
    turn_seconds: float

    def turns(self) -> Iterator[tuple[int, int, Target]]:
        """(round, requests in flight, target) in the order of asking."""
        for number in range(self.rounds):
            start = number % len(self.targets)
            for in_flight in self.in_flight:
                for target in (*self.targets[start:], *self.targets[:start]):
                    yield number, in_flight, target


@dataclass(frozen=True)
class Turn:
    """What one turn measured. Latencies in milliseconds, processor times in seconds."""

    way: str
    round: int
    in_flight: int
    requests: int
    seconds: float
    p50: float
    p99: float
    proxy_cpu: float
    client_cpu: float


class Asker:
    """Asks over connections that stay open."""

    def __init__(self, session: aiohttp.ClientSession, body: bytes) -> None:
        self._session = session
        self._body = body

    async def ask(self, target: Target, in_flight: int, seconds: float) -> list[float]:
        """Latencies in seconds of what was asked within that time. Raises RuntimeError for an answer other than 200."""
        url = target.url
        end = time.perf_counter() + seconds
        found: list[float] = []

        async def one_after_the_other() -> None:
            while (sent := time.perf_counter()) < end:
                async with self._session.post(url, data=self._body, headers=target.headers) as response:
                    text = await response.read()
                    if response.status != 200:
                        raise RuntimeError(f"{url} answered {response.status}: {text[:200]!r}")
                found.append(time.perf_counter() - sent)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(in_flight):
                tasks.create_task(one_after_the_other())
        return found


async def run(plan: Plan) -> None:
    """Take all turns."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
        headers={"content-type": "application/json"},
    )
    async with session:
        asker = Asker(session, plan.body.encode())
        for target in plan.targets:
            await asker.ask(target, max(plan.in_flight), WARM_UP_SECONDS)
        for number, in_flight, target in plan.turns():
            print(json.dumps(asdict(await _turn(asker, plan, number, in_flight, target))), flush=True)


async def _turn(asker: Asker, plan: Plan, number: int, in_flight: int, target: Target) -> Turn:
    proxies = [psutil.Process(pid) for pid in target.proxies]
    proxy_before, client_before, start = _cpu(proxies), time.process_time(), time.perf_counter()
    latencies = await asker.ask(target, in_flight, plan.turn_seconds)
    seconds = time.perf_counter() - start
    p50, p99 = np.percentile(np.array(latencies) * 1000, [50, 99])
    return Turn(
        target.name, number, in_flight, len(latencies), seconds, float(p50), float(p99),
        _cpu(proxies) - proxy_before, time.process_time() - client_before,
    )  # fmt: skip


def _cpu(processes: Sequence[psutil.Process]) -> float:
    return float(sum(spent.user + spent.system for spent in (process.cpu_times() for process in processes)))


def plan_from(content: dict[str, Any]) -> Plan:
    """The plan in its JSON form."""
    targets = [Target(**target) for target in content["targets"]]
    return Plan(**{**content, "targets": targets})


if __name__ == "__main__":
    asyncio.run(run(plan_from(json.load(sys.stdin))))
