"""What the relay costs a stream: tokens per processor time, time added to each token, memory while it is open.

The same streams pass a gateway without a relay, one with it, and LiteLLM's proxy, in turn. At full pace the engine
stand-in sends answers as fast as tokens are taken, which shows processor time, the stream's beginning included; at a
fixed pace each token tells when it was sent, which shows how long it was on its way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import psutil

from holdfast_chaos.bench import peer
from holdfast_chaos.bench.benchmark import BenchError, Benchmark, Json, Outcome, Setting, Table, ratio, shown
from holdfast_chaos.bench.figures import Figure, figure_table
from holdfast_chaos.bench.stream_client import OPEN_SECONDS, Window, exhaust, read, request
from holdfast_chaos.bench.stream_ways import RELAY, open_stream_ways, port_of
from holdfast_chaos.bench.ways import GATEWAY, MODEL, PATH, PEER, Way
from holdfast_chaos.edge import HOST
from holdfast_testbed.progress import Update

STREAMS = (1, 16, 64)
TOKENS = 100
"""Of each stream at full pace."""
MANY = 1_000_000
PAUSE = 0.02
"""Seconds between two tokens of a stream at fixed pace."""
SLOW_STREAMS, SLOW_PAUSE = 500, 2.0
WINDOW_SECONDS = 1.0
REST_SHARE, REST_SECONDS = 0.1, 15.0
"""A proxy rests when it uses less of one core than this; how long to wait for that."""
PER_SECOND = ("tokens_per_second", "tokens_per_proxy_cpu_second", "tokens_per_last_process_cpu_second")
QUANTILES = ("p50_ms", "p99_ms")
FULL, PACED = "full pace", "fixed pace"


@dataclass(frozen=True)
class Turn:
    """One window of one way."""

    way: str
    mode: str
    streams: int
    window: Window | None
    """None where the peer did not get so far."""


def measure(setting: Setting) -> Outcome:
    """Start everything on loopback, read streams for `seconds` in all, then hold many open; end everything."""
    litellm, why_not = peer.wanted(setting)
    windows = len(STREAMS) * 2 * (3 if litellm else 2)
    rounds = max(1, round(setting.seconds / (windows * WINDOW_SECONDS)))
    seconds = round(setting.seconds / (windows * rounds), 3)
    with ExitStack() as stack:
        with setting.progress.step("starting an engine stand-in, gateways and what they are compared with") as update:
            ways = stack.enter_context(open_stream_ways(update, litellm))
        with setting.progress.step(f"holding {SLOW_STREAMS} slow streams open") as update:
            memory = {way.name: _memory(way, update) for way in ways if way.name != PEER}
        with setting.progress.step(f"reading streams over each way in turn for {setting.seconds:g} s") as update:
            turns = list(_turns(_order(ways, rounds), seconds, update))
    results = {way.name: way_results(turns, way) for way in ways}
    aims = figures(results, memory)
    return Outcome(
        parameters={
            "rounds": rounds,
            "window_seconds": seconds,
            "streams": list(STREAMS),
            "pause_seconds": PAUSE,
            "slow": {"streams": SLOW_STREAMS, "pause_seconds": SLOW_PAUSE},
            "litellm": peer.VERSION,
        },
        results={
            "ways": results,
            "bytes_per_open_stream": memory,
            "figures": {each.name: each.as_json() for each in aims},
        },
        ratios={},
        tables=[full_table(results), paced_table(results), memory_table(memory), figure_table("In short", aims)],
        notes=[*NOTES, *([why_not] if why_not else [])],
    )


def _order(ways: Sequence[Way], rounds: int) -> Iterator[tuple[Way, str, int]]:
    """Every window; ways take turns, each round beginning with another one."""
    for number in range(rounds):
        start = number % len(ways)
        for mode in (FULL, PACED):
            for count in STREAMS:
                for way in (*ways[start:], *ways[:start]):
                    yield way, mode, count


def _turns(order: Iterator[tuple[Way, str, int]], seconds: float, update: Update) -> Iterator[Turn]:
    """All windows; what the peer could not do once is not asked of it again."""
    given_up = set()
    for way, mode, count in order:
        if (way.name, mode, count) in given_up:
            continue
        turn = _turn(way, mode, count, seconds, update)
        if turn.window is None:
            given_up.add((way.name, mode, count))
        yield turn


def _turn(way: Way, mode: str, count: int, seconds: float, update: Update) -> Turn:
    update(f"{way.name}, {mode}, {count} streams")
    address = (HOST, port_of(way))
    try:
        if mode == FULL:
            window = exhaust(address, request(PATH, MODEL, TOKENS), count, seconds, lambda: _cpu(way))
        else:
            asked = request(PATH, MODEL, MANY, PAUSE, seconds + OPEN_SECONDS)
            window = read(address, asked, count, seconds, lambda: _cpu(way))
    except BenchError:
        if way.name != PEER:
            raise
        window = None
    _rest(way)
    return Turn(way.name, mode, count, window)


def _cpu(way: Way) -> tuple[float, ...]:
    spent = (psutil.Process(pid).cpu_times() for pid in way.proxies)
    return tuple(float(each.user + each.system) for each in spent)


def _rest(way: Way) -> None:
    """Wait until the proxies have taken note that the client left."""
    end = time.monotonic() + REST_SECONDS
    before, span = sum(_cpu(way)), 0.2
    while time.monotonic() < end:
        time.sleep(span)
        now = sum(_cpu(way))
        if now - before < REST_SHARE * span:
            return
        before = now


def _memory(way: Way, update: Update) -> list[int]:
    """Bytes by which each process grew for each of many slow streams.

    Measured before anything else is asked: what a process has grown to once, it hardly gives back.
    """
    update(way.name)
    read((HOST, port_of(way)), request(PATH, MODEL, MANY, PAUSE, 1.0), 1, 0.5, lambda: _cpu(way))
    before = _resident(way)
    held: list[list[int]] = []

    def look() -> tuple[float, ...]:
        held.append(_resident(way))
        return ()

    asked = request(PATH, MODEL, MANY, SLOW_PAUSE, SLOW_PAUSE + OPEN_SECONDS)
    read((HOST, port_of(way)), asked, SLOW_STREAMS, SLOW_PAUSE, look)
    _rest(way)
    return [max(0, now - then) // SLOW_STREAMS for now, then in zip(held[-1], before, strict=True)]


def _resident(way: Way) -> list[int]:
    return [int(psutil.Process(pid).memory_info().rss) for pid in way.proxies]


def way_results(turns: Sequence[Turn], way: Way) -> Json:
    """One way: tokens per second and per processor time at full pace, delays in ms at a fixed one."""
    return {
        mode: {str(count): _together([each for each in turns if (each.way, each.mode, each.streams) ==
                                      (way.name, mode, count)]) for count in STREAMS}
        for mode in (FULL, PACED)
    }  # fmt: skip


def _together(turns: Sequence[Turn]) -> Json:
    windows = [turn.window for turn in turns if turn.window is not None]
    if not windows:
        return dict.fromkeys(("tokens", *PER_SECOND, *QUANTILES))
    tokens = sum(each.tokens for each in windows)
    cpu = [sum(spent) for spent in zip(*(each.cpu for each in windows), strict=True)]
    delays = np.array([delay for each in windows for delay in each.delays]) * 1000
    p50, p99 = (float(each) for each in np.percentile(delays, [50, 99])) if len(delays) else (None, None)
    return {
        "tokens": tokens,
        "tokens_per_second": round(tokens / sum(each.seconds for each in windows), 1),
        "tokens_per_proxy_cpu_second": ratio(tokens, sum(cpu)),
        "tokens_per_last_process_cpu_second": ratio(tokens, cpu[-1]),
        "p50_ms": p50,
        "p99_ms": p99,
    }


def figures(results: Json, memory: Json) -> list[Figure]:
    """The relay's own cost, and beside the peer's."""
    most = str(STREAMS[-1])
    relay, plain = results[RELAY], results[GATEWAY]
    other = results.get(PEER)
    alone = relay[FULL][most]["tokens_per_last_process_cpu_second"]
    found = [
        Figure(f"tokens per CPU second, relay alone, {most} streams", _some(alone), "", digits=0, at_least=True),
    ]
    for name in ("p50", "p99"):
        added = [relay[PACED][str(count)][f"{name}_ms"] - plain[PACED][str(count)][f"{name}_ms"] for count in STREAMS]
        found.append(Figure(f"time added to a token, {name}", added, "ms"))
    found.append(Figure("memory of an open stream, relay alone", [memory[RELAY][-1] / 1024], "KiB", digits=1))
    whole, its = relay[FULL][most]["tokens_per_proxy_cpu_second"], other and other[FULL][most]
    times = ratio(whole, its["tokens_per_proxy_cpu_second"]) if its else None
    found.append(Figure(f"tokens per CPU second, {RELAY} / {PEER}", _some(times), "×", digits=1, at_least=True))
    return found


def _some(value: float | None) -> list[float]:
    return [] if value is None else [value]


def full_table(results: Json) -> Table:
    """Work per processor time."""
    rows = [
        [_label(way, count), shown(one["tokens_per_second"], 0), shown(one["tokens_per_proxy_cpu_second"], 0),
         shown(one["tokens_per_last_process_cpu_second"] if way == RELAY else None, 0)]
        for way, modes in results.items() for count, one in modes[FULL].items()
    ]  # fmt: skip
    columns = ["WAY", "TOKENS/s", "TOKENS/PROXY CPU s", "OF THE RELAY ALONE"]
    return Table("Tokens as fast as they are taken", columns, rows)


def paced_table(results: Json) -> Table:
    """How long a token is on its way."""
    rows = [
        [_label(way, count), shown(one["tokens_per_second"], 0), *(shown(one[name], 2) for name in QUANTILES)]
        for way, modes in results.items() for count, one in modes[PACED].items()
    ]  # fmt: skip
    pace = f"{1 / PAUSE:g} tokens a second in each stream: from the engine to the client"
    return Table(pace, ["WAY", "TOKENS/s", "P50 ms", "P99 ms"], rows)


def _label(way: str, count: str) -> str:
    return f"{way}, {count} stream{'' if count == '1' else 's'}"


def memory_table(memory: Json) -> Table:
    """What an open stream takes; the relay beside its Envoy."""
    rows = []
    for way, each in memory.items():
        rows.append([way, shown(sum(each) / 1024, 1), shown(each[-1] / 1024 if way == RELAY else None, 1)])
    title = f"KiB of resident memory for each of {SLOW_STREAMS} open streams"
    return Table(title, ["WAY", "ALL PROCESSES", "THE RELAY ALONE"], rows)


NOTES = (
    "Client, engine stand-in and proxies share the cores of one machine: tokens per second say less than tokens per "
    "processor time. Times on the way include what the client waits for the processor, in all ways alike.",
    "A stream through the relay passes its Envoy three times (client, outbound and peer port), one without it twice.",
    "At a fixed pace a proxy that is too busy falls behind, and the times grow with the length of the window; a dash: "
    f"not every stream had a token within {OPEN_SECONDS:g} s.",
)

BENCHMARK = Benchmark(needs_regions=False, measure=measure)
