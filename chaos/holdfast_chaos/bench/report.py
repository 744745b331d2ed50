"""A benchmark's outcome as it leaves: one JSON file for programs, tables for people."""

from __future__ import annotations

import json
import os
import platform
from datetime import datetime
from pathlib import Path

import psutil
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from .benchmark import Json, Outcome, Table


def machine() -> Json:
    """The machine that the numbers belong to; memory in GiB."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def document(name: str, started: datetime, on: Json, outcome: Outcome) -> Json:
    """The content of a benchmark's file."""
    return {
        "name": name,
        "started": started.isoformat(timespec="seconds"),
        "machine": on,
        "parameters": outcome.parameters,
        "results": outcome.results,
        "ratios": outcome.ratios,
        "notes": list(outcome.notes),
    }


def write(content: Json, folder: Path) -> Path:
    """Write a benchmark's file into a folder, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{content['name']}.json"
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def print_outcome(outcome: Outcome, console: Console) -> None:
    """Print a benchmark's tables and notes."""
    for table in outcome.tables:
        console.print(table.title, style="bold")
        console.print(_drawn(table))
        console.print()
    for note in outcome.notes:
        console.print(note, style="dim", markup=False)
    console.print()


def _drawn(table: Table) -> RichTable:
    drawn = RichTable(header_style="dim", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, heading in enumerate(table.columns):
        drawn.add_column(heading, justify="right" if place else "left", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*row)
    return drawn
