"""What a benchmark is: the words between the runner, the report and the modules in `cases`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast_chaos.errors import ChaosError
from holdfast_chaos.service import Service
from holdfast_testbed.progress import Progress
from holdfast_testbed.testbed import Testbed

Json = dict[str, Any]


class BenchError(ChaosError):
    """A benchmark could not be measured."""


@dataclass(frozen=True)
class Setting:
    """What a benchmark is given."""

    seconds: float
    """How long to measure, what comes before not counted."""
    progress: Progress
    bed: Testbed
    """Up, with Holdfast installed, for benchmarks that need regions; else not to be used."""
    service: Service
    """Serving in every region of the testbed."""
    without: frozenset[str] = frozenset()
    """Peers, in lower case, that are not measured beside Holdfast."""


@dataclass(frozen=True)
class Table:
    """A table for people; the first column holds names, the others numbers that are written out already."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Outcome:
    """What a benchmark measured: values for programs, tables for people."""

    parameters: Json
    results: Json
    ratios: Json
    tables: Sequence[Table]
    notes: Sequence[str] = field(default=())
    """Sentences that a reader of the numbers has to know."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark; `measure` raises ChaosError or TestbedError."""

    needs_regions: bool
    measure: Callable[[Setting], Outcome]


def ratio(value: float | None, base: float | None) -> float | None:
    """`value` as a multiple of `base`; None where either is not known or the base is nothing."""
    return None if value is None or not base else round(value / base, 3)


def shown(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A number as tables show it; a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}{unit}"


def by_name(benchmarks: Mapping[str, Benchmark]) -> list[tuple[str, Benchmark]]:
    """In the order in which they run: those without regions first, before regions that just started use the cores."""
    return sorted(benchmarks.items(), key=lambda item: (item[1].needs_regions, item[0]))
