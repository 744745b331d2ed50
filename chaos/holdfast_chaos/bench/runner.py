"""Runs benchmarks one after the other, on regions where one needs them, and hands out what each has measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from holdfast_chaos.ready import bring_up, regional, wait_serving
from holdfast_chaos.service import Service, read_service
from holdfast_testbed.progress import Progress
from holdfast_testbed.testbed import Testbed

from .benchmark import BenchError, Benchmark, Json, Outcome, Setting, by_name
from .report import document, machine, write


@dataclass(frozen=True)
class BenchOptions:
    """What the person who runs benchmarks chooses."""

    bed: str
    service: Path
    out: Path
    seconds: float
    as_is: bool
    """Measure what the regions run now: nothing is started, installed or applied."""
    without: frozenset[str] = frozenset()
    """Peers, in lower case, that are not measured beside Holdfast."""


def run_benchmarks(
    benchmarks: Mapping[str, Benchmark], options: BenchOptions, progress: Progress
) -> Iterator[tuple[Json, Outcome]]:
    """Measure each and write its file; yields them as they are done."""
    service = read_service(options.service)
    bed = Testbed(options.bed, progress)
    setting = Setting(options.seconds, progress, bed, service, options.without)
    ready = False
    for name, benchmark in by_name(benchmarks):
        if benchmark.needs_regions and not ready:
            _make_ready(bed, service, options.as_is, progress)
            ready = True
        started = datetime.now(UTC)
        progress.say(f"benchmark {name}")
        outcome = benchmark.measure(setting)
        content = document(name, started, machine(), outcome)
        write(content, options.out)
        yield content, outcome


def _make_ready(bed: Testbed, service: Service, as_is: bool, progress: Progress) -> None:
    if not as_is:
        bring_up(bed, service, progress)
        return
    if not bed.exists:
        raise BenchError(f"There is no testbed {bed.name} to measure as it is; leave --as-is away to start one.")
    wait_serving(regional(bed, service), service, progress)
