"""What the records in a folder come to."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.unit.gateway.test_ledger_record import envoy

from holdfast_gateway.__main__ import main
from holdfast_gateway.ledger.record import Outcome
from holdfast_gateway.ledger.report import when
from holdfast_gateway.ledger.totals import percentile

BASE = envoy().record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two days: five requests of two tenants, of which one came twice, and a torn line."""
    first = [
        replace(BASE, id="a", ttft_ms=10),
        replace(BASE, id="b", ttft_ms=30, resumed=2),
        replace(BASE, id="a", tokens_out=999),
        replace(BASE, id="c", tenant="zoo", outcome=Outcome.FAILED, tokens_in=None, tokens_out=None, ttft_ms=None),
    ]
    second = [
        replace(BASE, id="d", time="2026-01-03T01:00:00.000Z", tokens_out=None),
        replace(BASE, id="e", time="2026-01-03T02:00:00.000Z", outcome=Outcome.REFUSED, model=None, tenant=None),
    ]
    (tmp_path / "usage-2026-01-02-gw.jsonl").write_bytes(b"".join(each.line() for each in first) + b'{"id": "to')
    (tmp_path / "usage-2026-01-03-gw.jsonl").write_bytes(b"".join(each.line() for each in second))
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["usage", *arguments])


def test_a_request_counts_once_and_the_first_record_counts(folder: Path) -> None:
    result = run(str(folder), "-o", "json")
    rows = json.loads(result.stdout)
    assert [(row["tenant"], row["model"], row["requests"]) for row in rows] == [
        ("-", "-", 1), ("acme", "llama", 3), ("zoo", "llama", 1),
    ]  # fmt: skip
    assert rows[1] == {
        "tenant": "acme", "model": "llama", "requests": 3, "tokens_in": 9, "tokens_out": 8, "uncounted": 1,
        "refused": 0, "failed": 0, "client_left": 0, "resumed": 1, "ttft_p50_ms": 10, "ttft_p99_ms": 30,
    }  # fmt: skip
    assert rows[2]["failed"] == 1
    assert rows[2]["ttft_p99_ms"] is None
    assert "1 lines are no records" in result.stderr


def test_records_are_added_up_by_day_and_hour_from_some_time_on(folder: Path) -> None:
    assert "2026-01-03T02:00Z" in run(f"file://{folder}", "--by", "hour").stdout
    rows = list(
        csv.DictReader(run(str(folder), "--by", "day", "--since", "2026-01-03", "-o", "csv").stdout.splitlines())
    )
    assert [(row["day"], row["requests"]) for row in rows] == [("2026-01-03", "2")]


def test_the_table_lines_up(folder: Path) -> None:
    header, *rows = run(str(folder)).stdout.splitlines()
    assert header.split()[:3] == ["TENANT", "MODEL", "REQUESTS"]
    assert all(row[: header.index("MODEL")].strip() in ("-", "acme", "zoo") for row in rows)
    assert run(str(folder), "--since", "1m").stdout == "No records.\n"


@pytest.mark.parametrize("arguments", [["--by", "colour"], ["--since", "soon"], ["/nowhere/at/all"]])
def test_what_cannot_be_done_is_said(folder: Path, arguments: list[str]) -> None:
    result = run(*(arguments if arguments[0].startswith("/") else [str(folder), *arguments]))
    assert result.exit_code != 0
    assert "Traceback" not in result.output


def test_times_and_percentiles() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert when("36h", now) == now - timedelta(hours=36)
    assert when("2026-01-01", now) == now - timedelta(days=1)
    assert [percentile(range(1, 101), percent) for percent in (50, 99)] == [50, 99]
    assert percentile([7], 1) == 7
