"""Writes a run's files: the report, its picture, and the records from which both can be computed again."""

from __future__ import annotations

import json
from pathlib import Path

from .records import Record, Records, to_line
from .report import Run, report_json
from .timeline import draw_timeline

REPORT, PICTURE, RECORDS = "report.json", "timeline.png", "records.jsonl"


def write_files(run: Run, records: Records, folder: Path) -> None:
    """Write all files into a folder, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT).write_text(json.dumps(report_json(run), indent=2) + "\n")
    everything: list[Record] = [*records.requests, *records.streams]
    (folder / RECORDS).write_text("".join(to_line(record) + "\n" for record in everything))
    draw_timeline(run, folder / PICTURE)
