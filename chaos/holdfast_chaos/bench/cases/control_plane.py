"""How fast three operators agree, hand over and move traffic, what that writes, and what many services cost.

Three control planes of its own, with real operators and stand-ins for the gateways; no engine and no Envoy runs.
"""

from __future__ import annotations

import os
import signal

import psutil

from holdfast_chaos.bench.benchmark import BenchError, Benchmark, Outcome, Setting
from holdfast_chaos.bench.control_rounds import drains, edits, first_service, hand_over, quiet
from holdfast_chaos.bench.figures import Figure, figure_table
from holdfast_chaos.bench.fleet import open_fleet
from holdfast_chaos.bench.scale import scale

CLEAN_ROUNDS, CRASH_ROUNDS, EDIT_ROUNDS, DRAIN_ROUNDS = 5, 3, 20, 3
SERVICES = "HOLDFAST_BENCH_SERVICES"
"""Environment variable: how many services the scale part applies; 0 leaves it out."""
DEFAULT_SERVICES = 100
NOTES = (
    "Every change is timed by when a watch of the benchmark's process brought it; an edit's time begins before the "
    "request that applies it. The drained figure includes how long observers wait for a token (4 s by default).",
    "Operators run with the default terms of 15, 10 and 2 s. kube-controller-manager and kube-scheduler elect by the "
    "same defaults within one API server, so a crash costs them the same 15 s and up to one retry; not measured here.",
    "Heartbeats (one Lease per region every 3 s) and leaders' Leases are not among the writes.",
    "Three API servers, three operators and the stand-ins share this machine's cores.",
)


def measure(setting: Setting) -> Outcome:
    """Start all of it, measure one thing after the other, remove all of it."""
    if os.geteuid() != 0:
        raise BenchError("The control-plane benchmark starts regions of its own, which needs root.")
    services = _services()
    step = setting.progress.step
    psutil.cpu_percent(None)
    with open_fleet(setting.progress) as fleet:
        with step("handing the leadership over") as update:
            clean = hand_over(fleet, signal.SIGTERM, CLEAN_ROUNDS, update)
        with step("killing the leader") as update:
            crash = hand_over(fleet, signal.SIGKILL, CRASH_ROUNDS, update)
        first_service(fleet)
        with step("editing a service") as update:
            edited = edits(fleet, EDIT_ROUNDS, update)
        with step("letting engines hang") as update:
            drained = drains(fleet, DRAIN_ROUNDS, update)
        with step(f"counting writes for {setting.seconds:g} s"):
            rested = quiet(fleet, setting.seconds)
        grown = None
        if services:
            with step(f"applying {services} services") as update:
                grown = scale(fleet, services, update)
    speed = [
        Figure("leader ends (SIGTERM) → another leads", clean, aim=3.0),
        Figure("leader dies (SIGKILL) → another leads", crash, aim=20.0),
        *edited.figures[:3],
        *drained.figures,
    ]
    writes = [*edited.figures[3:], *rested.figures]
    tables = [figure_table("How fast", speed), figure_table("What is written", writes)]
    if grown:
        tables.append(figure_table(f"{services} services in 3 regions", grown.figures))
    figures = [*speed, *writes, *(grown.figures if grown else ())]
    missed = [f"With {services} services: {each}" for each in grown.more["missed"]] if grown else []
    busy = psutil.cpu_percent(None)
    return Outcome(
        parameters={
            "regions": 3,
            "services": services,
            "lease_seconds": 15, "renew_deadline_seconds": 10, "retry_seconds": 2,
            "quiet_seconds": setting.seconds,
        },
        results={
            "machine_cpu_percent": busy,
            "figures": {each.name.strip(): each.as_json() for each in figures},
            "edits": edited.more,
            "quiet": rested.more,
            "scale": grown.more if grown else None,
        },
        ratios={},
        tables=tables,
        notes=(*NOTES, *missed, f"The whole machine was {busy:.0f} % busy meanwhile."),
    )  # fmt: skip


def _services() -> int:
    text = os.environ.get(SERVICES, str(DEFAULT_SERVICES))
    if not text.isdigit():
        raise BenchError(f"{SERVICES} must be a whole number, not {text!r}.")
    return int(text)


BENCHMARK = Benchmark(needs_regions=False, measure=measure)
