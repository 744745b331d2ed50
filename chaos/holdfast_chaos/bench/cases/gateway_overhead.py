"""What the way through gateways costs a request: rate, latency and processor time, beside no proxy, a bare Envoy and
LiteLLM's proxy.

One client process asks an engine stand-in over each way in turn. Every figure is the median over rounds: a disturbed
round moves it little. Processor time is the sum over all rounds divided by their requests.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict

import psutil

from holdfast_chaos.bench import asker, peer
from holdfast_chaos.bench.asker import Plan, Target, Turn
from holdfast_chaos.bench.benchmark import BenchError, Benchmark, Json, Outcome, Setting, Table, ratio, shown
from holdfast_chaos.bench.figures import Figure, figure_table
from holdfast_chaos.bench.ways import (
    BARE,
    BODY,
    DIRECT,
    EDGE,
    GATEWAY,
    KNOWN_TENANTS,
    PEER,
    TENANTS,
    Way,
    open_ways,
    parameters,
)
from holdfast_testbed.progress import Update

IN_FLIGHT = (1, 8)
"""One after the other shows latency without queues; eight at once keep every server busy."""
ALONE, TOGETHER = IN_FLIGHT
TURN_SECONDS = 0.75
RATIOS = (
    (BARE, DIRECT), (GATEWAY, DIRECT), (TENANTS, DIRECT), (EDGE, DIRECT), (PEER, DIRECT),
    (GATEWAY, BARE), (EDGE, BARE), (TENANTS, GATEWAY), (GATEWAY, PEER), (TENANTS, PEER),
)  # fmt: skip


def measure(setting: Setting) -> Outcome:
    """Start everything on loopback, ask for `seconds` in all, end everything."""
    litellm, why_not = peer.wanted(setting)
    with ExitStack() as stack:
        with setting.progress.step(
            "starting an engine stand-in, Envoys, gateways and what they are compared with"
        ) as say:
            ways = stack.enter_context(open_ways(say, litellm))
        plan = plan_for(ways, setting.seconds)
        with setting.progress.step(f"asking over each way in turn for {setting.seconds:g} s") as update:
            psutil.cpu_percent(None)
            turns = _ask(plan, update)
            machine_cpu = psutil.cpu_percent(None)
    results = {way.name: {str(count): way_results(turns, way.name, count) for count in IN_FLIGHT} for way in ways}
    for found in results.values():
        for count in IN_FLIGHT:
            found[str(count)] |= added(found[str(count)], results[DIRECT][str(count)])
    ratios = {str(count): way_ratios(results, count) for count in IN_FLIGHT}
    aims = figures(results)
    return Outcome(
        parameters={
            "rounds": plan.rounds,
            "turn_seconds": plan.turn_seconds,
            "in_flight": list(IN_FLIGHT),
            "client": "aiohttp, HTTP/1.1, one process, connections kept open; on the way to the engine HTTP/2",
            **parameters(),
        },
        results={
            "machine_cpu_percent": machine_cpu,
            "ways": results,
            "figures": {each.name: each.as_json() for each in aims},
        },
        ratios=ratios,
        tables=[
            *(way_table(results, count) for count in IN_FLIGHT),
            ratio_table(ratios),
            figure_table("What was aimed at", aims),
        ],
        notes=[*_notes(machine_cpu), *([why_not] if why_not else [])],
    )


def plan_for(ways: Sequence[Way], seconds: float) -> Plan:
    """Rounds of short turns that together last `seconds`: at least one, the turns shorter if that is too long."""
    targets = [Target(way.name, way.url, way.proxies, way.headers) for way in ways]
    turns = len(targets) * len(IN_FLIGHT)
    rounds = max(1, round(seconds / (turns * TURN_SECONDS)))
    return Plan(targets, BODY.decode(), IN_FLIGHT, rounds, round(seconds / (turns * rounds), 3))


def way_results(turns: Sequence[Turn], way: str, in_flight: int) -> Json:
    """One way with so many requests in flight: latencies in ms, rates per second, processor time in µs a request."""
    mine = [turn for turn in turns if turn.way == way and turn.in_flight == in_flight]
    requests = sum(turn.requests for turn in mine)
    rates = [turn.requests / turn.seconds for turn in mine]
    used = sum(turn.proxy_cpu for turn in mine)
    return {
        "requests": requests,
        "requests_per_second": round(statistics.median(rates), 1),
        "requests_per_second_range": [round(min(rates), 1), round(max(rates), 1)],
        "p50_ms": round(statistics.median(turn.p50 for turn in mine), 3),
        "p99_ms": round(statistics.median(turn.p99 for turn in mine), 3),
        "proxy_cpu_us": round(1e6 * used / requests, 1),
        "requests_per_proxy_cpu_second": round(requests / used, 1) if used else None,
        "client_cpu_percent": round(
            100 * sum(turn.client_cpu for turn in mine) / sum(turn.seconds for turn in mine), 1
        ),
    }


def added(found: Json, direct: Json) -> Json:
    """What a way adds to the latency of asking directly, in ms."""
    return {f"added_{key}": round(found[key] - direct[key], 3) for key in ("p50_ms", "p99_ms")}


def way_ratios(results: Json, in_flight: int) -> Json:
    """One way as a multiple of another."""
    keys = {"rate": "requests_per_second", "p50": "p50_ms", "p99": "p99_ms", "proxy_cpu": "proxy_cpu_us"}
    found = {}
    for way, base in RATIOS:
        if not {way, base} <= results.keys():
            continue
        one, other = results[way][str(in_flight)], results[base][str(in_flight)]
        found[f"{way} / {base}"] = {name: ratio(one[key], other[key]) for name, key in keys.items()}
    return found


def figures(results: Json) -> list[Figure]:
    """What was aimed at: work per processor time where servers are busy, latency where nothing queues."""

    def busy(way: str) -> float | None:
        return results[way][str(TOGETHER)]["requests_per_proxy_cpu_second"] if way in results else None

    def value(found: float | None) -> list[float]:
        return [] if found is None else [found]

    own, alone = busy(GATEWAY), results[GATEWAY][str(ALONE)]
    return [
        Figure(f"requests per CPU second, {GATEWAY}", value(own), "", aim=2500, digits=0, at_least=True),
        Figure(f"requests per CPU second, {TENANTS}", value(busy(TENANTS)), "", digits=0, at_least=True),
        Figure(
            f"requests per CPU second, {GATEWAY} / {PEER}", value(ratio(own, busy(PEER))), "×", 30, 1, at_least=True
        ),
        Figure(f"added latency p50, {GATEWAY}", [alone["added_p50_ms"]], "ms", aim=0.5),
        Figure(f"added latency p99, {GATEWAY}", [alone["added_p99_ms"]], "ms"),
    ]


def way_table(results: Json, in_flight: int) -> Table:
    """The ways, for one number of requests in flight."""
    latencies = ["P50 ms", "ADDED", "P99 ms", "ADDED"]
    columns = ["WAY", "REQUESTS/s", *latencies, "PROXY CPU µs/REQUEST", "REQUESTS/PROXY CPU s", "CLIENT CPU %"]
    rows = []
    for way, counts in results.items():
        one = counts[str(in_flight)]
        direct = way == DIRECT
        rows.append([
            way, shown(one["requests_per_second"], 0),
            shown(one["p50_ms"]), shown(None if direct else one["added_p50_ms"]),
            shown(one["p99_ms"]), shown(None if direct else one["added_p99_ms"]),
            shown(None if direct else one["proxy_cpu_us"], 0), shown(one["requests_per_proxy_cpu_second"], 0),
            shown(one["client_cpu_percent"], 0),
        ])  # fmt: skip
    flight = "One request after the other" if in_flight == ALONE else f"{in_flight} requests in flight"
    return Table(f"{flight}: the way to an engine that answers at once", columns, rows)


def ratio_table(ratios: Json) -> Table:
    """Rate and processor time where the servers are busy, latency where nothing queues."""
    rows = [
        [
            name, shown(ratios[str(TOGETHER)][name]["rate"], 2, " ×"),
            shown(alone["p50"], 2, " ×"), shown(alone["p99"], 2, " ×"),
            shown(ratios[str(TOGETHER)][name]["proxy_cpu"], 2, " ×"),
        ]
        for name, alone in ratios[str(ALONE)].items()
    ]  # fmt: skip
    return Table(
        f"Side by side: latency one by one, the rest with {TOGETHER} in flight",
        ["RATIO", "REQUESTS/s", "P50", "P99", "PROXY CPU"],
        rows,
    )


def _ask(plan: Plan, update: Update) -> list[Turn]:
    """Run the client; BenchError with its last words if it fails."""
    turns: list[Turn] = []
    planned = len(list(plan.turns()))
    with tempfile.TemporaryFile("w+") as errors:
        client = subprocess.Popen(
            [sys.executable, "-m", asker.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(json.dumps(asdict(plan)))
            client.stdin.close()
            for line in client.stdout:
                turns.append(Turn(**json.loads(line)))
                update(f"{len(turns)} of {planned} turns")
        finally:
            client.kill()
            client.wait()
        if len(turns) < planned:
            errors.seek(0)
            said = errors.read().strip().splitlines() or ["nothing"]
            raise BenchError(f"The client ended before its time; it said: {said[-1].strip()}")
    return turns


def _notes(machine_cpu: float) -> list[str]:
    return [
        "All on one machine: client, engine stand-in and Envoys share its cores, so a longer way also lowers the rate "
        "by what it takes from the client; processor time per request does not depend on that.",
        "The gateway's Envoy handles a request twice (it chooses a region, then an engine); behind an edge only once.",
        f"The {TENANTS} knows {KNOWN_TENANTS} API keys and counts every request; {PEER} asks for no key.",
        f"The whole machine was {machine_cpu:.0f} % busy meanwhile.",
    ]


BENCHMARK = Benchmark(needs_regions=False, measure=measure)
