"""What Holdfast costs a region that does nothing: memory and processor time of each part, beside Kubernetes' own.

Two readings of /proc, `seconds` apart, once the region has settled; see `parts` for which process is which.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping

import psutil

from holdfast_chaos.bench.benchmark import BenchError, Benchmark, Json, Outcome, Setting, Table, ratio, shown
from holdfast_chaos.bench.parts import (
    AGENT,
    CONTROL_PLANE,
    ENGINE,
    ENVOY,
    HOLDFAST,
    OPERATOR,
    SUPERVISOR,
    Parts,
    find_parts,
)
from holdfast_chaos.bench.processes import MIB, Stopwatch, Use, together, use_of
from holdfast_testbed.progress import Update

SETTLE_WINDOW, SETTLE_MOST = 3.0, 60.0
ALIKE = 0.2
"""Two windows whose processor times differ by less than this part show a region that has settled."""
KUBERNETES = "Kubernetes"
WITHOUT_ENGINE = "Holdfast without engine"
RATIOS = ((OPERATOR, "kube-controller-manager"), (AGENT, ENVOY), (WITHOUT_ENGINE, KUBERNETES))
SOURCE = (
    "/proc on this machine: memory from smaps at the end, user and system time from stat at both ends; Holdfast's "
    "processes by their container's id in /proc/PID/cgroup, all others of the region count as Kubernetes"
)

Uses = dict[str, Use]
"""Part → what it uses, in one region."""


def measure(setting: Setting) -> Outcome:
    """Wait until the regions are idle, then watch them for `seconds`."""
    if setting.seconds <= 0:
        raise BenchError("The footprint needs some seconds to measure idle processor time.")
    with setting.progress.step("finding every process of the regions"):
        regions = {region.name: find_parts(setting.bed, region, setting.service) for region in setting.bed.regions}
    with setting.progress.step("waiting until the regions are idle") as update:
        settled = _settle(regions.values(), update)
    with setting.progress.step(f"watching the regions for {setting.seconds:g} s"):
        before = Stopwatch(process for parts in regions.values() for process in parts.all)
        psutil.cpu_percent(None)
        time.sleep(setting.seconds)
        cpu = before.cpu()
        machine_cpu = psutil.cpu_percent(None)
    uses = {name: _uses(parts, cpu) for name, parts in regions.items()}
    ratios = {name: region_ratios(found) for name, found in uses.items()}
    return Outcome(
        parameters={
            "testbed": setting.bed.name,
            "seconds": setting.seconds,
            "service": f"{setting.service.namespace}/{setting.service.name}",
            "images": {name: parts.images for name, parts in regions.items()},
            "source": SOURCE,
        },
        results={
            "settled": settled,
            "machine_cpu_percent": machine_cpu,
            "cpu_resolution_percent": round(100 / os.sysconf("SC_CLK_TCK") / setting.seconds, 3),
            "regions": {name: {part: use.as_json() for part, use in found.items()} for name, found in uses.items()},
        },
        ratios=ratios,
        tables=[footprint_table(uses), ratio_table(ratios)],
        notes=_notes(settled, machine_cpu),
    )


def region_ratios(uses: Uses) -> Json:
    """One part as a multiple of another, by memory (RSS) and by processor time."""
    found = {}
    for part, base in RATIOS:
        one, other = uses[part], uses.get(base)
        found[f"{part} / {base}"] = {
            "memory": ratio(one.rss, other.rss if other else None),
            "cpu": ratio(one.cpu, other.cpu if other else None),
        }
    return found


def footprint_table(uses: Mapping[str, Uses]) -> Table:
    """All parts by region; parts that a region does not have are dashes."""
    parts: list[str] = list(dict.fromkeys(part for found in uses.values() for part in found))
    columns = ["PART", *(heading for name in uses for heading in (f"{name} MiB", "CPU %"))]
    rows = []
    for part in parts:
        cells = [found.get(part) for found in uses.values()]
        numbers = [
            text
            for use in cells
            for text in (shown(use.rss / MIB if use else None, 1), shown(use.cpu if use else None))
        ]  # fmt: skip
        rows.append([part if part in (*HOLDFAST, WITHOUT_ENGINE, KUBERNETES) else f"  {part}", *numbers])
    return Table("Resident memory and idle processor time (percent of one core), by region", columns, rows)


def _cells(use: Use | None) -> tuple[str, str]:
    return (shown(use.rss / MIB, 1), shown(use.cpu)) if use else (shown(None), shown(None))


def ratio_table(ratios: Mapping[str, Json]) -> Table:
    """The ratios by region."""
    columns = ["RATIO", *(heading for name in ratios for heading in (f"{name} memory", "CPU"))]
    names = next(iter(ratios.values()))
    rows = [
        [name, *(shown(found[name][kind], 2, " ×") for found in ratios.values() for kind in ("memory", "cpu"))]
        for name in names
    ]
    return Table("Side by side", columns, rows)


def _uses(parts: Parts, cpu: Mapping[psutil.Process, float]) -> Uses:
    holdfast = {part: together(use_of(one, cpu) for one in found) for part, found in parts.holdfast.items()}
    kubernetes = {part: together(use_of(one, cpu) for one in found) for part, found in parts.kubernetes.items()}
    largest = sorted(kubernetes, key=lambda part: (part not in CONTROL_PLANE, -kubernetes[part].rss))
    return {
        **holdfast,
        WITHOUT_ENGINE: together(use for part, use in holdfast.items() if part != ENGINE),
        KUBERNETES: together(kubernetes.values()),
        **{part: kubernetes[part] for part in largest},
    }


def _settle(regions: Iterable[Parts], update: Update) -> bool:
    """Wait until two windows are alike; whether that came before the patience ended."""
    processes = [process for parts in regions for process in parts.all]
    end = time.monotonic() + SETTLE_MOST
    last: float | None = None
    while time.monotonic() < end:
        window = Stopwatch(processes)
        time.sleep(SETTLE_WINDOW)
        now = sum(window.cpu().values())
        update(f"{now:.0f} % of one core in all regions")
        if last is not None and abs(now - last) < ALIKE * max(now, last):
            return True
        last = now
    return False


def _notes(settled: bool, machine_cpu: float) -> list[str]:
    notes = [
        f"The {SUPERVISOR} starts Envoy, restarts it and drains it; {KUBERNETES} is the sum of the lines below it.",
        f"The whole machine was {machine_cpu:.0f} % busy meanwhile.",
    ]
    if not settled:
        notes.append(f"The regions had not settled after {SETTLE_MOST:.0f} s: these are not the numbers of idle ones.")
    return notes


BENCHMARK = Benchmark(needs_regions=True, measure=measure)
