"""The report: its JSON's shape, the verdict, the tables and the picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from tests.unit.chaos.chaos_stories import answered, killed, lost, run_of, steady, stream

from holdfast_chaos.output import write_files
from holdfast_chaos.records import Record, Records, StreamOutcome, from_json, to_line
from holdfast_chaos.report import report_json, verdict
from holdfast_chaos.table import print_report

STORY = Records(
    (*steady(2), lost(2.0), answered(2.5, "eu-west", seconds=0.75), answered(5.0, "eu-west")),
    (stream(2.25, StreamOutcome.TRUNCATED), stream(6.0)),
)


def test_the_report_holds_what_its_readers_look_for() -> None:
    report = report_json(run_of(STORY, killed(asked=2.0, heal=4.0)))

    assert report["requests"] == {"total": 7, "ok": 6, "failed": 1}
    assert report["streams"] == {"total": 2, "completed": 1, "truncated": 1, "failed": 0}
    assert report["rto_seconds"] == 0.5
    assert report["latency_ms"]["p50"] == 100.0
    assert report["latency_ms"]["p99"] == report["latency_ms"]["slowest"] == 750.0
    assert report["latency_ms"]["during"]["slowest"] == 750.0
    assert report["regions"]["us-east"] == {"before": 4, "during": 0, "after": 0}
    assert report["regions"]["eu-west"] == {"before": 0, "during": 1, "after": 1}
    assert report["timeline"][2] == {
        "second": 2,
        "ok": {"eu-west": 1},
        "failed": 1,
        "streams": {"completed": 0, "truncated": 1, "failed": 0},
        "latency_ms": {"p50": 750.0, "p99": 750.0, "slowest": 750.0},
    }
    assert report["failures"][0]["count"] == 1
    (fault,) = report["faults"]
    assert fault == {
        "kind": "kill",
        "region": "us-east",
        "asked_seconds": 2.0,
        "done_seconds": 2.25,
        "heal_asked_seconds": 4.0,
        "heal_done_seconds": 5.0,
        "rto_seconds": report["rto_seconds"],
        "requests": report["requests"]["total"],
        "failed": report["requests"]["failed"],
        "latency_ms": report["latency_ms"]["during"],
    }
    assert set(report) >= {"times", "versions", "load"}


def test_the_report_is_json_and_keeps_secret_headers_to_itself() -> None:
    text = json.dumps(report_json(run_of(STORY, killed())))

    assert "secret" not in text


def test_a_load_without_a_fault_has_no_rto() -> None:
    report = report_json(run_of(STORY))

    assert report["rto_seconds"] is None
    assert report["faults"] == []
    assert set(report["latency_ms"]) == {"p50", "p99", "slowest"}


def test_an_empty_load_can_be_reported() -> None:
    report = report_json(run_of(Records(), killed()))

    assert report["requests"] == {"total": 0, "ok": 0, "failed": 0}
    assert report["latency_ms"]["p99"] is None
    assert report["timeline"] == []


@pytest.mark.parametrize(
    ("records", "passed"),
    [
        (STORY, False),
        (Records((), STORY.streams), False),
        (Records(STORY.requests, ()), False),
        (Records(tuple(steady(3))), True),
        (Records(), True),
    ],
)
def test_a_run_passes_exactly_when_no_request_failed_and_no_stream_was_cut(records: Records, passed: bool) -> None:
    assert run_of(records, killed()).passed is passed


def test_the_verdict_says_what_happened() -> None:
    assert verdict(run_of(STORY, killed())) == (
        "us-east was killed: 1 of 7 requests failed, 1 of 2 streams were cut or never began."
    )
    assert verdict(run_of(Records(tuple(steady(3))))) == "None of 6 requests failed, no stream was cut."


def test_the_tables_show_failures_and_cut_streams() -> None:
    console = Console(record=True, width=160)
    with console.capture() as printed:
        print_report(run_of(STORY, killed()), console)

    for words in ("us-east", "eu-west", "no healthy upstream", "ended without [DONE]", "RTO", "request-2"):
        assert words in printed.get()


@pytest.mark.parametrize("records", [STORY, Records()])
def test_all_files_are_written_whatever_was_recorded(records: Records, tmp_path: Path) -> None:
    write_files(run_of(records, killed()), records, tmp_path / "deep" / "folder")
    written = tmp_path / "deep" / "folder"

    assert json.loads((written / "report.json").read_text())["requests"]["total"] == len(records.requests)
    assert (written / "timeline.png").read_bytes().startswith(b"\x89PNG")
    again = [from_json(json.loads(line)) for line in (written / "records.jsonl").read_text().splitlines()]
    assert Records.of([record for record in again if record]) == records


@pytest.mark.parametrize("record", [answered(1.0), lost(2.0), stream(3.0, StreamOutcome.TRUNCATED)])
def test_a_record_survives_its_line(record: Record) -> None:
    assert from_json(json.loads(to_line(record))) == record
