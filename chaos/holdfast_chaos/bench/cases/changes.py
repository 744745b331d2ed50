"""How fast an edited Route takes effect at a gateway that knows many services, and what so many cost.

A real API server holds a ConfigMap for each service, a real agent follows it and writes Envoy's files, a real Envoy
reads them. Each edit gives one service another model name; it has taken effect when a request for that model is no
longer answered with "no such model".
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np
import psutil

from holdfast_chaos.bench.benchmark import BenchError, Benchmark, Outcome, Setting
from holdfast_chaos.bench.figures import Figure, figure_table
from holdfast_chaos.bench.many_routes import Change, Gateway, open_gateway
from holdfast_chaos.bench.processes import MIB, Stopwatch
from holdfast_testbed.progress import Update

ROUTES = "HOLDFAST_BENCH_ROUTES"
"""Environment variable: how many services the gateway knows."""
DEFAULT_ROUTES = 2000
CHANGES = 50
SERVER = "what serves Envoy"
IDLE_SECONDS = 5.0
PAUSE_SECONDS = 0.3
"""Between two edits, so that each is measured alone."""


def measure(setting: Setting) -> Outcome:
    """Start all of it, edit one route after the other for `seconds` at most, remove all of it."""
    if os.geteuid() != 0:
        raise BenchError("The benchmark of changes starts an API server of its own, which needs root.")
    wanted = _routes()
    with open_gateway(wanted, setting.progress) as gateway:
        routes = gateway.routes
        with setting.progress.step(f"watching {routes} services at rest"):
            watch = Stopwatch((gateway.agent, gateway.server, gateway.envoy))
            time.sleep(IDLE_SECONDS)
            idle = watch.cpu()
        with setting.progress.step("editing one route after the other") as update:
            processes = {"agent": gateway.agent, SERVER: gateway.server, "Envoy": gateway.envoy}
            before = {name: _spent(each) for name, each in processes.items()}
            changes = _edit(gateway, setting.seconds, update)
            used = {name: (_spent(each) - before[name]) / len(changes) for name, each in processes.items()}
        memory = {name: each.memory_info().rss / MIB for name, each in processes.items()}
    speed = [
        Figure("edit → Envoy answers by it, p50", [_quantile(changes, 50)], "ms", digits=0),
        Figure("edit → Envoy answers by it, p99", [_quantile(changes, 99)], "ms", aim=250, digits=0),
        Figure("  edit → the agent has written it", [1000 * each.written for each in changes], "ms", digits=0),
        Figure("  written → Envoy answers by it", [1000 * (each.effective - each.written) for each in changes], "ms",
               digits=0),
    ]  # fmt: skip
    cost = [
        Figure("start of agent and Envoy → all are known", [gateway.started], digits=1),
        *(Figure(f"memory: {name}", [each], "MiB", digits=0) for name, each in memory.items()),
        *(Figure(f"processor time at rest: {name}", [idle[each]], "%", digits=1) for name, each in processes.items()),
        *(Figure(f"processor time of an edit: {name}", [1000 * each], "ms", digits=0) for name, each in used.items()),
    ]  # fmt: skip
    return Outcome(
        parameters={"services": routes, "regions": 1, "changes": len(changes)},
        results={"figures": {each.name.strip(): each.as_json() for each in (*speed, *cost)}},
        ratios={},
        tables=[
            figure_table(f"An edit at a gateway that knows {routes} services", speed),
            figure_table(f"What {routes} services cost", cost),
        ],
        notes=[
            "The API server, the agent, Envoy and the client share the cores of one machine. Each service has one "
            "region, this one, and no engine there: what checks that finds it ill.",
        ],
    )


def _edit(gateway: Gateway, seconds: float, update: Update) -> list[Change]:
    changes: list[Change] = []
    end = time.monotonic() + seconds
    for version in range(1, CHANGES + 1):
        changes.append(gateway.change(version * 7919 % gateway.routes, version))
        update(f"{version} of {CHANGES}: {1000 * changes[-1].effective:.0f} ms")
        if time.monotonic() > end:
            break
        time.sleep(PAUSE_SECONDS)
    return changes


def _quantile(changes: Sequence[Change], percent: int) -> float:
    return 1000 * float(np.percentile([each.effective for each in changes], percent))


def _spent(process: psutil.Process) -> float:
    spent = process.cpu_times()
    return float(spent.user + spent.system)


def _routes() -> int:
    text = os.environ.get(ROUTES, str(DEFAULT_ROUTES))
    if not text.isdigit() or not int(text):
        raise BenchError(f"{ROUTES} must be a whole number above 0, not {text!r}.")
    return int(text)


BENCHMARK = Benchmark(needs_regions=False, measure=measure)
