"""Prints a run's report as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from .measure import Failures, Latency, Phase, Recovery
from .records import StreamOutcome
from .report import Run, verdict

SAMPLES = 5


def print_report(run: Run, console: Console) -> None:
    """Print what the clients saw, by region, and what failed; the verdict last."""
    tables = {"What the clients saw": _summary(run), "Requests answered, by region": _regions(run)}
    if len(run.measured.recoveries) > 1:
        tables["Faults, and the requests from each until the next; latency until healing"] = _faults(
            run.measured.recoveries
        )
    if failures := run.measured.failures:
        tables["Failed requests"] = _failures(failures)
    if failures := run.measured.stream_failures:
        tables["Streams not completed"] = _failures(failures)
    for title, table in tables.items():
        console.print(title, style="bold")
        console.print(table)
        console.print()
    console.print(verdict(run), style="bold green" if run.passed else "bold red", markup=False)


def _summary(run: Run) -> Table:
    measured, streams = run.measured, run.measured.streams
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    failed = "green" if measured.requests_failed == 0 else "red"
    rows = {
        "requests": f"{measured.requests:,}, failed [{failed}]{measured.requests_failed:,}[/]",
        "streams": f"{sum(streams.values()):,}, completed {streams[StreamOutcome.COMPLETED]:,}, "
        f"cut {streams[StreamOutcome.TRUNCATED]:,}, never began {streams[StreamOutcome.FAILED]:,}",
        "latency": _latency(measured.latency),
    }
    if len(run.measured.recoveries) == 1:
        rows |= _fault_rows(run.measured.recoveries[0])
    rows["load itself"] = f"late by {_latency(measured.lateness)}; {run.cost.cpu_percent:.0f} % of one core"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _fault_rows(recovery: Recovery) -> dict[str, str]:
    fault = recovery.fault
    healed = "" if fault.heal_done is None else f", took {fault.heal_done - fault.heal_asked:.1f} s"
    return {
        "  during the fault": _latency(recovery.during),
        "fault": f"{fault.kind} {fault.region} at {fault.asked:.2f} s, took {fault.done - fault.asked:.2f} s",
        "heal": f"at {fault.heal_asked:.2f} s{healed}",
        "RTO": _rto(recovery),
    }


def _faults(recoveries: Sequence[Recovery]) -> Table:
    """Several faults, a line each."""
    table = Table(header_style="dim", box=None, padding=(0, 2, 0, 0))
    columns = ("FAULT", "REGION", "AT", "HEALED AFTER", "REQUESTS", "FAILED", "RTO", "P50 ms", "P99 ms", "SLOWEST ms")
    for number, heading in enumerate(columns):
        table.add_column(heading, justify="left" if number < 2 else "right")
    for each in recoveries:
        fault, during = each.fault, each.during
        healed = "–" if fault.heal_done is None else f"{fault.heal_done - fault.asked:.1f} s"
        latency = ("–" if value is None else f"{value:,.0f}" for value in (during.p50, during.p99, during.slowest))
        table.add_row(
            fault.kind, fault.region, f"{fault.asked:.1f} s", healed, f"{each.requests:,}", f"{each.failed:,}",
            _rto(each), *latency,
        )  # fmt: skip
    return table


def _rto(recovery: Recovery) -> str:
    return "not recovered" if recovery.rto is None else f"{recovery.rto:.2f} s"


def _latency(latency: Latency) -> str:
    parts = {"p50": latency.p50, "p99": latency.p99, "slowest": latency.slowest}
    return ", ".join(f"{name} {'–' if value is None else f'{value:,.1f} ms'}" for name, value in parts.items())


def _regions(run: Run) -> Table:
    table = Table(header_style="dim", box=None, padding=(0, 2, 0, 0))
    table.add_column("REGION")
    phases = list(Phase) if run.measured.recoveries else [Phase.BEFORE]
    for phase in phases:
        table.add_column(phase.value.upper() if run.measured.recoveries else "REQUESTS", justify="right")
    for name, counts in run.measured.regions.items():
        table.add_row(name, *(f"{counts[phase]:,}" for phase in phases))
    return table


def _failures(failures: tuple[Failures, ...]) -> Table:
    table = Table(header_style="dim", box=None, padding=(0, 2, 0, 0))
    for heading, justify in (("COUNT", "right"), ("FIRST", "right"), ("WHY", "left"), ("EXAMPLE", "left")):
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for group in failures[:SAMPLES]:
        table.add_row(str(group.count), f"{group.first:.1f} s", group.message, group.example)
    return table
