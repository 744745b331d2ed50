"""Reads what processes of this machine use, from /proc: memory now, and processor time between two moments."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from .benchmark import BenchError, Json

MIB = 2**20
CONTAINER = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Use:
    """What some processes use together."""

    processes: int
    rss: int
    """Resident memory in bytes, as `ps` shows it; pages that processes share count once for each."""
    pss: int
    """The same with shared pages divided among those that share them, on the whole machine."""
    cpu: float
    """Percent of one core."""

    def __add__(self, other: Use) -> Use:
        return Use(
            self.processes + other.processes,
            self.rss + other.rss,
            self.pss + other.pss,
            self.cpu + other.cpu,
        )

    def as_json(self) -> Json:
        """Memory in MiB."""
        return {
            "processes": self.processes,
            "rss_mib": round(self.rss / MIB, 1),
            "pss_mib": round(self.pss / MIB, 1),
            "cpu_percent": round(self.cpu, 2),
        }


NOTHING = Use(0, 0, 0, 0.0)


def together(uses: Iterable[Use]) -> Use:
    """The sum."""
    return sum(uses, NOTHING)


def container_of(cgroups: str) -> str:
    """The container's id in the text of a `/proc/PID/cgroup`, the innermost one; empty outside of containers."""
    for line in cgroups.splitlines():
        if found := CONTAINER.findall(line):
            return str(found[-1])
    return ""


def by_container(wanted: Iterable[str]) -> dict[str, list[psutil.Process]]:
    """Container id → its processes now, for these containers."""
    found: dict[str, list[psutil.Process]] = {container: [] for container in wanted}
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            container = container_of(Path(f"/proc/{process.pid}/cgroup").read_text())
            if container in found:
                found[container].append(process)
    return found


class Stopwatch:
    """Remembers the processor time of processes at one moment, to tell what they used since."""

    def __init__(self, processes: Iterable[psutil.Process]) -> None:
        self._start = time.monotonic()
        self._before = {process: _cpu_seconds(process) for process in processes}

    def cpu(self) -> dict[psutil.Process, float]:
        """Percent of one core that each has used since; BenchError if one has ended or does not run."""
        elapsed = time.monotonic() - self._start
        return {process: 100 * (_cpu_seconds(process) - spent) / elapsed for process, spent in self._before.items()}


def use_of(process: psutil.Process, cpu: Mapping[psutil.Process, float]) -> Use:
    """One process's memory now, with its processor time as measured before."""
    try:
        memory = process.memory_full_info()
    except psutil.Error as error:
        raise BenchError(_lost(process)) from error
    return Use(1, int(memory.rss), int(memory.pss), cpu[process])


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        if process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            raise BenchError(_lost(process))
        spent = process.cpu_times()
    except psutil.Error as error:
        raise BenchError(_lost(process)) from error
    return float(spent.user + spent.system)


def _lost(process: psutil.Process) -> str:
    return (
        f"Process {process.pid} ended or was frozen while it was measured; "
        "run the benchmark again when nothing else works on the regions."
    )
