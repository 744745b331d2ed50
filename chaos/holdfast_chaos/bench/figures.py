"""What is computed of measurements, beside what was aimed at: no I/O."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .benchmark import Json, Table, shown

Series = dict[str, float]
"""`name{labels}` of a metric → its value."""


@dataclass(frozen=True)
class Figure:
    """One measured thing, once for each round."""

    name: str
    values: Sequence[float]
    unit: str = "s"
    aim: float | None = None
    """The largest value that was aimed at, or the smallest."""
    digits: int = 2
    at_least: bool = False
    """Whether more is better."""

    @property
    def median(self) -> float | None:
        """None where nothing was measured."""
        return statistics.median(self.values) if self.values else None

    @property
    def worst(self) -> float | None:
        """The largest, or the smallest where more is better."""
        return (min if self.at_least else max)(self.values, default=None)

    @property
    def reached(self) -> bool | None:
        """Whether even the worst value is as was aimed at; None without an aim or a value."""
        if self.aim is None or self.worst is None:
            return None
        return self.worst >= self.aim if self.at_least else self.worst <= self.aim

    def as_json(self) -> Json:
        """Every value, and what the table shows of them."""
        return {
            "unit": self.unit,
            "median": self.median,
            "worst": self.worst,
            "aim": self.aim,
            "reached": self.reached,
            "values": [round(value, 4) for value in self.values],
        }


def figure_table(title: str, figures: Iterable[Figure]) -> Table:
    """A row for each."""
    rows = []
    for each in figures:
        unit = f" {each.unit}" if each.unit else ""
        numbers = (shown(value, each.digits, unit) if value is not None else "–" for value in (each.median, each.worst))
        aim = "–" if each.aim is None else f"{'≥' if each.at_least else '≤'} {each.aim:,g}{unit}"
        rows.append([each.name, str(len(each.values)), *numbers, aim])
    return Table(title, ["FIGURE", "ROUNDS", "MEDIAN", "WORST", "AIM"], rows)


@dataclass(frozen=True)
class Event:
    """One change of an object, as a watch brought it."""

    at: float
    """Monotonic clock."""
    region: str
    kind: str
    name: str
    manifest: Mapping[str, Any]


def first(events: Iterable[Event], kind: str, name: str, test: Callable[[Mapping[str, Any]], bool]) -> dict[str, float]:
    """Region → when an object there first passed the test."""
    found: dict[str, float] = {}
    for event in events:
        if (event.kind, event.name) == (kind, name) and event.region not in found and test(event.manifest):
            found[event.region] = event.at
    return found


def parse_metrics(text: str) -> Series:
    """Every sample of a text in Prometheus' format."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            found[series] = float(value)
    return found


def grown(before: Mapping[str, Series], after: Mapping[str, Series], name: str) -> dict[str, float]:
    """Label value → by how much a counter with one label grew, over all operators; only what did."""
    total: dict[str, float] = {}
    for operator, series in after.items():
        for key, value in series.items():
            if key.partition("{")[0] == name:
                label = key.partition('="')[2].rpartition('"')[0]
                total[label] = total.get(label, 0.0) + value - before.get(operator, {}).get(key, 0.0)
    return {label: value for label, value in sorted(total.items()) if value}


def mean_grown(before: Mapping[str, Series], after: Mapping[str, Series], histogram: str) -> float | None:
    """Mean of what a histogram without labels took up in between, over all operators."""
    count, total = (
        sum(series.get(f"{histogram}_{part}", 0.0) - before.get(operator, {}).get(f"{histogram}_{part}", 0.0)
            for operator, series in after.items())
        for part in ("count", "sum")
    )  # fmt: skip
    return total / count if count else None


def planned(number: int) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a RegionPlan carries out this edit or a later one."""
    return lambda plan: int(plan["spec"]["number"]) >= number


def held_by(number: int, least: int) -> Callable[[Mapping[str, Any]], bool]:
    """Whether an LLMService's status names at least so many holders of this edit."""

    def test(service: Mapping[str, Any]) -> bool:
        found = service.get("status", {}).get("replication", {})
        return int(found.get("number", 0)) >= number and len(found.get("holders", ())) >= least

    return test


def traffic_is(region: str, state: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a RegionPlan gives a region this state."""
    return lambda plan: any(
        each["region"] == region and each["state"] == state for each in plan["spec"].get("traffic", ())
    )
