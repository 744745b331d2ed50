"""What this region's engines make of the requests that they get, second by second.

Envoy counts how users' requests end. Whether tokens come is known to the engines alone; they are asked while requests
are there, and left alone otherwise. Observers read the outcome on the peer port.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from holdfast.api.route import Route
from holdfast.api.traffic import ServiceTraffic
from holdfast_gateway.options import Options
from holdfast_gateway.render.routes import PEER_ROUTES
from holdfast_gateway.render.values import local_cluster
from holdfast_gateway.state import Snapshot

log = logging.getLogger(__name__)

PERIOD_SECONDS = 0.5
REST = 10
"""How many times as long as a look takes it is waited for the next: Envoy looks through all of its counters."""
WINDOW_SECONDS = 10.0
TIMEOUT_SECONDS = 2.0
STATS = rf"^(vhost\.{PEER_ROUTES}\.vcluster\.|cluster\.local/.*\.upstream_(rq_active|cx_none_healthy)$)"
_VCLUSTER = re.compile(rf"^vhost\.{PEER_ROUTES}\.vcluster\.(?P<key>.+)\.upstream_rq_(?P<what>completed|5xx)$")
_LOCAL = re.compile(
    rf"^cluster\.{local_cluster('')}(?P<key>[^/]+/[^/]+?)(?P<revision>/.+)?\.upstream_(?P<what>rq_active|cx_none_healthy)$"
)
GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting")
TOKENS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")
"""Prompts count as progress as well: an engine that reads a long one is at work."""


@dataclass(frozen=True)
class Counted:
    """What Envoy has counted for one service since it started."""

    completed: int = 0
    errors: int = 0
    active: int = 0
    """Requests that are at the engines now, the observers' among them."""


@dataclass(frozen=True)
class Generated:
    """What the engines of one service say together."""

    in_flight: int
    tokens: float


def read_stats(document: Mapping[str, Any]) -> dict[str, Counted]:
    """Envoy's `/stats?format=json`, by service (`namespace/name`).

    What was refused because no engine of its revision is here was not answered here: it went on to another region.
    """
    sums: Counter[tuple[str, str]] = Counter()
    keys = set()
    for stat in document.get("stats", ()):
        name, value = str(stat.get("name", "")), stat.get("value")
        if not (match := _VCLUSTER.match(name) or _LOCAL.match(name)):
            continue
        keys.add(match["key"])
        if match["what"] != "cx_none_healthy" or match["revision"]:
            sums[match["key"], match["what"]] += int(value)
    return {
        key: Counted(
            completed=max(0, sums[key, "completed"] - sums[key, "cx_none_healthy"]),
            errors=max(0, sums[key, "5xx"] - sums[key, "cx_none_healthy"]),
            active=sums[key, "rq_active"],
        )
        for key in sorted(keys)
    }


def read_metrics(text: str) -> Generated:
    """An engine's `/metrics`. Only the lines of interest are parsed: the whole is long, and is read often."""
    wanted = (*GAUGES, *TOKENS)
    lines = "\n".join(line for line in text.splitlines() if line.startswith(wanted))
    sums = dict.fromkeys(wanted, 0.0)
    for family in text_string_to_metric_families(lines + "\n"):
        for sample in family.samples:
            if sample.name in sums:
                sums[sample.name] += sample.value
    return Generated(int(sum(sums[name] for name in GAUGES)), sum(sums[name] for name in TOKENS))


@dataclass
class History:
    """One service over the last seconds; times of the monotonic clock."""

    counts: deque[tuple[float, Counted]] = field(default_factory=deque)
    silent_since: float | None = None
    tokens: float | None = None

    def count(self, now: float, counted: Counted) -> None:
        """Take up what Envoy says; counters that went back belong to an Envoy that was started anew."""
        if self.counts and counted.completed < self.counts[-1][1].completed:
            self.counts.clear()
        self.counts.append((now, counted))
        while now - self.counts[0][0] > WINDOW_SECONDS:
            self.counts.popleft()

    def progress(self, now: float, generated: Generated | None) -> None:
        """Take up what the engines say; None: no request is there, or the engines do not say."""
        if generated is None or not generated.in_flight:
            self.silent_since, self.tokens = None, None
        elif self.silent_since is None or generated.tokens != self.tokens:
            self.silent_since, self.tokens = now, generated.tokens

    def report(self, now: float) -> ServiceTraffic:
        """What observers are told."""
        (since, first), (_, last) = self.counts[0], self.counts[-1]
        return ServiceTraffic(
            window_seconds=round(now - since, 3),
            requests=last.completed - first.completed,
            errors=last.errors - first.errors,
            silent_seconds=None if self.silent_since is None else round(now - self.silent_since, 3),
        )


class Traffic:
    """Follows the traffic of every service with engines in this region."""

    def __init__(self, options: Options, known: Callable[[], Snapshot | None]) -> None:
        self._options = options
        self._known = known
        self._histories: dict[str, History] = {}

    def report(self) -> dict[str, ServiceTraffic]:
        """Service (`namespace/name`) → its traffic of late; those without any are left out."""
        now = time.monotonic()
        found = {key: each.report(now) for key, each in sorted(self._histories.items()) if each.counts}
        return {key: each for key, each in found.items() if each.requests or each.silent_seconds is not None}

    async def run(self) -> None:
        """Follows until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session:
            while True:
                started = time.monotonic()
                await self._look(session)
                took = time.monotonic() - started
                await asyncio.sleep(max(PERIOD_SECONDS - took, REST * took))

    async def _look(self, session: aiohttp.ClientSession) -> None:
        snapshot = self._known()
        routes = {route.key: route for route in snapshot.routes if route.local} if snapshot else {}
        self._histories = {key: self._histories.get(key, History()) for key in routes}
        if snapshot is None or not routes:
            return
        counted = await self._envoy(session)
        if counted is None:
            return
        now = time.monotonic()
        for key, history in self._histories.items():
            history.count(now, counted.get(key, Counted()))
        busy = [routes[key] for key in routes if counted.get(key, Counted()).active]
        said = await asyncio.gather(
            *(self._engines(session, each, snapshot.engines.get(each.key, ())) for each in busy)
        )
        generated = {route.key: each for route, each in zip(busy, said, strict=True)}
        now = time.monotonic()
        for key, history in self._histories.items():
            history.progress(now, generated.get(key))

    async def _envoy(self, session: aiohttp.ClientSession) -> dict[str, Counted] | None:
        url = f"http://127.0.0.1:{self._options.admin_port}/stats"
        try:
            async with session.get(url, params={"filter": STATS, "format": "json", "usedonly": ""}) as answer:
                return read_stats(await answer.json(content_type=None))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, TypeError) as error:
            log.debug("Envoy's counters cannot be read: %s", error)
            return None

    async def _engines(
        self, session: aiohttp.ClientSession, route: Route, addresses: Iterable[str]
    ) -> Generated | None:
        """All engines of a service together; those that do not say anything are left out."""
        urls = [f"http://{_host(each)}:{route.engine_port}/metrics" for each in addresses]
        said = [each for each in await asyncio.gather(*(_engine(session, url) for url in urls)) if each is not None]
        if not said:
            return None
        return Generated(sum(each.in_flight for each in said), sum(each.tokens for each in said))


async def _engine(session: aiohttp.ClientSession, url: str) -> Generated | None:
    try:
        async with session.get(url) as answer:
            return read_metrics(await answer.text()) if answer.status == 200 else None
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        log.debug("%s cannot be read: %s", url, error)
        return None


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
