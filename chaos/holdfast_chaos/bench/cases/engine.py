"""The CPU engine on the tiny model: what batching, the shim, the prefix cache and sleep do to throughput and latency.

Each comparison takes turns within one run, so that what changes on the machine meets both sides. The model is tiny: a
step takes less than a millisecond, so that what is spent around it weighs more than with any real model.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from holdfast_chaos.bench import direct_pipeline
from holdfast_chaos.bench.benchmark import BenchError, Benchmark, Json, Outcome, Setting, Table, ratio, shown
from holdfast_chaos.bench.engine_client import MODEL, state, streams
from holdfast_chaos.bench.processes import MIB
from holdfast_chaos.bench.servers import Server
from holdfast_chaos.edge import free_ports
from holdfast_engine.tiny_model import write_tiny_model

PLACES = 32
P99_LIMIT = 1.0
"""Seconds: the latency at which the ways of batching are compared."""
RATES = tuple(round(20 * 1.35**step) for step in range(13))
"""Requests per second, tried from the lowest until the limit is passed."""
RUN_SECONDS, LEAST_REQUESTS = 4.0, 300
AT_ONCE = (1, 16, 32)
TOKENS = 400
ROUNDS = 7
TRIES = 3
PREFIX_TOKENS = 3000
SLEEP_AFTER = 0.5
STATE_SECONDS = 60.0


@contextmanager
def engine(model: Path, *options: str) -> Iterator[tuple[Server, int]]:
    """A server of the engine, awake and ready, and its port."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "holdfast_engine", "serve", "--model", str(model), "--served-name", MODEL]
    command += ["--host", "127.0.0.1", "--port", str(port), *options]
    with Server("engine", command, model.with_name(f"engine-{port}.log")) as server:
        server.wait_until(lambda: state(port) == "awake")
        yield server, port


def measure(setting: Setting) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as folder:
        model = write_tiny_model(Path(folder) / "tiny.gguf").path
        with setting.progress.step("batching: continuous beside static"):
            batching = {way: _most(model, way) for way in ("static", "continuous")}
        with setting.progress.step("the pipeline alone beside the pipeline behind the shim"):
            shim = _shim(model)
        with setting.progress.step("the first token of a long prompt, with and without the prefix cache"):
            prefix = _prefix(model)
        with setting.progress.step("waking up beside starting"):
            rest = _rest(model)
    ratios = {
        "continuous / static, throughput": ratio(batching["continuous"]["rate"], batching["static"]["rate"]),
        **{f"shim / direct, time per token, {n} at once": ratio(shim[n]["shim"], shim[n]["direct"]) for n in AT_ONCE},
        **{f"shim / direct, CPU per token, {n} at once": _cpu_ratio(shim[n]) for n in AT_ONCE},
        "no prefix cache / prefix cache, first token": ratio(prefix["without"], prefix["with"]),
        "cold start / wake, first token": ratio(rest["start_to_token"], rest["wake_to_token"]),
        "memory awake after load / asleep": ratio(rest["loaded_mib"], rest["asleep_mib"]),
    }
    return Outcome(
        parameters={"places": PLACES, "p99_limit_s": P99_LIMIT, "tokens": TOKENS, "prefix_tokens": PREFIX_TOKENS},
        results={"batching": batching, "shim": shim, "prefix_cache": prefix, "rest": rest},
        ratios=ratios,
        tables=_tables(batching, shim, prefix, rest, ratios),
        notes=[
            "Static batching fills all places at once and generates for each sequence of a batch until its longest is "
            "complete; it runs on the same pipeline, with the same requests at the same moments.",
            "The client of the streams shares the cores with the engine; the pipeline alone has no client.",
        ],
    )


def _direct(model: Path, order: Json) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", direct_pipeline.__name__, str(model)],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"The pipeline failed: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def _most(model: Path, way: str) -> Json:
    """The highest rate at which the latency keeps to the limit, and what was seen on the way up.

    A rate counts as too high when it was three times: other work on the machine disturbs a run now and then.
    """
    steps: list[Json] = []
    for rate in RATES:
        count = max(LEAST_REQUESTS, int(rate * RUN_SECONDS))
        plan = {
            "way": way,
            "places": PLACES,
            "lengths": direct_pipeline.skewed_lengths(count, seed=1),
            "arrivals": np.cumsum(np.random.default_rng(2).exponential(1 / rate, count)).tolist(),
        }
        for _ in range(TRIES):
            [run] = _direct(model, {"places": PLACES, "batching": [plan]})
            p50, p99 = (float(each) for each in np.percentile(run["latencies"], [50, 99]))
            tokens = sum(plan["lengths"]) / run["seconds"]
            steps.append({"rate": rate, "p50": p50, "p99": p99, "tokens_per_second": tokens})
            if p99 <= P99_LIMIT:
                break
        else:
            break
    kept = [step for step in steps if step["p99"] <= P99_LIMIT]
    if not kept:
        raise BenchError(f"Even {RATES[0]} requests per second take more than {P99_LIMIT} s; the machine is too busy.")
    return {**kept[-1], "steps": steps}


def _shim(model: Path) -> dict[int, Json]:
    """Microseconds for each token, by how many requests run at once: medians of rounds that take turns."""
    found: dict[int, Json] = {}
    with engine(model) as (server, port):
        streams(port, max(AT_ONCE), prompt=direct_pipeline.PROMPT, max_tokens=TOKENS)
        for count in AT_ONCE:
            rounds: dict[str, list[float]] = {"direct": [], "direct_cpu": [], "shim": [], "shim_cpu": []}
            for _ in range(ROUNDS):
                seconds, used = _direct(model, {"tokens": {"requests": count, "tokens": TOKENS}})
                before = _cpu(server.pid)
                _, shim = streams(port, count, prompt=direct_pipeline.PROMPT, max_tokens=TOKENS)
                for name, value in zip(rounds, (seconds, used, shim, _cpu(server.pid) - before), strict=True):
                    rounds[name].append(1e6 * value / (count * TOKENS))
            medians = {name: statistics.median(values) for name, values in rounds.items()}
            found[count] = {**medians, "rounds": rounds}
    return found


def _cpu(pid: int) -> float:
    """Seconds of processor time that the engine's processes have used."""
    process = psutil.Process(pid)
    return float(sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True))))


def _prefix(model: Path) -> Json:
    """Median seconds to the first token of prompts that begin alike; the first of each engine is not counted."""
    found = {}
    shared = [5 + n % 400 for n in range(PREFIX_TOKENS)]
    for name, option in (("without", "--no-prefix-caching"), ("with", "--prefix-caching")):
        with engine(model, option) as (_, port):
            firsts = [streams(port, 1, prompt=[*shared, 7 + n], max_tokens=2)[0][0] for n in range(ROUNDS + 1)]
        found[name] = statistics.median(firsts[1:])
    return found


def _rest(model: Path) -> Json:
    """Seconds to the first token of an engine that has to be started, or to be woken; and its memory."""
    started, awake, woken, memory = list[float](), list[float](), list[float](), list[tuple[float, float]]()
    for _ in range(3):
        begun = time.perf_counter()
        with engine(model, "--sleep-after", str(SLEEP_AFTER), "--prefix-caching") as (server, port):
            streams(port, 1, prompt=direct_pipeline.PROMPT, max_tokens=2)
            started.append(time.perf_counter() - begun)
            awake.append(streams(port, 1, prompt=direct_pipeline.PROMPT, max_tokens=2)[0][0])
            streams(port, PLACES, prompt=[5] * PREFIX_TOKENS, max_tokens=20)
            loaded = _memory(server.pid)
            _wait_asleep(port)
            memory.append((loaded, _memory(server.pid)))
            woken.append(streams(port, 1, prompt=direct_pipeline.PROMPT, max_tokens=2)[0][0])
    return {
        "start_to_token": statistics.median(started),
        "wake_to_token": statistics.median(woken),
        "awake_to_token": statistics.median(awake),
        "loaded_mib": statistics.median(loaded for loaded, _ in memory),
        "asleep_mib": statistics.median(asleep for _, asleep in memory),
    }


def _wait_asleep(port: int) -> None:
    end = time.monotonic() + STATE_SECONDS
    while state(port) != "asleep":
        if time.monotonic() > end:
            raise BenchError(f"The engine did not fall asleep within {STATE_SECONDS:g} s.")
        time.sleep(0.05)


def _memory(pid: int) -> float:
    """MiB of the engine's processes; pages that they share count once."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return float(sum(each.memory_full_info().pss for each in family)) / MIB


def _cpu_ratio(one: Json) -> float | None:
    return ratio(one["shim_cpu"], one["direct_cpu"])


def _tables(batching: Json, shim: dict[int, Json], prefix: Json, rest: Json, ratios: Json) -> Sequence[Table]:
    ways = [
        [way, shown(one["rate"], 0), shown(1000 * one["p50"], 0), shown(1000 * one["p99"], 0),
         shown(one["tokens_per_second"], 0)]
        for way, one in batching.items()
    ]  # fmt: skip
    tokens = [
        [str(count), *(shown(one[name], 0) for name in ("direct", "shim")),
         shown(100 * (one["shim"] / one["direct"] - 1), 1, " %"),
         *(shown(one[name], 0) for name in ("direct_cpu", "shim_cpu"))]
        for count, one in shim.items()
    ]  # fmt: skip
    other = [
        ["first token, prompt never seen", shown(1000 * prefix["without"], 1, " ms")],
        ["first token, prefix in the cache", shown(1000 * prefix["with"], 1, " ms")],
        ["process started → first token", shown(1000 * rest["start_to_token"], 0, " ms")],
        ["asleep → first token", shown(1000 * rest["wake_to_token"], 0, " ms")],
        ["awake and idle → first token", shown(1000 * rest["awake_to_token"], 1, " ms")],
        ["memory after load", shown(rest["loaded_mib"], 0, " MiB")],
        ["memory asleep", shown(rest["asleep_mib"], 0, " MiB")],
    ]
    limit = f"The most requests per second with p99 ≤ {1000 * P99_LIMIT:.0f} ms, skewed lengths, {PLACES} places"
    return [
        Table(limit, ["BATCHING", "REQUESTS/s", "P50 ms", "P99 ms", "TOKENS/s"], ways),
        Table("µs per token", ["AT ONCE", "PIPELINE", "BEHIND THE SHIM", "ADDED", "CPU PIPELINE", "CPU SHIM"], tokens),
        Table("First tokens and memory", ["FIGURE", "MEDIAN"], other),
        Table("Ratios", ["RATIO", ""], [[name, shown(value, 2, " ×")] for name, value in ratios.items()]),
    ]


BENCHMARK = Benchmark(needs_regions=False, measure=measure)
