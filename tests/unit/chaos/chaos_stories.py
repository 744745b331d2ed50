"""Builds records by hand: short words for the stories that the tests tell."""

from __future__ import annotations

from datetime import UTC, datetime

from holdfast_chaos.client import LoadSpec
from holdfast_chaos.load_process import LoadCost
from holdfast_chaos.measure import Fault, measure
from holdfast_chaos.records import Records, RequestRecord, StreamOutcome, StreamRecord
from holdfast_chaos.report import Run


def answered(at: float, region: str = "us-east", seconds: float = 0.1, late: float = 0.0) -> RequestRecord:
    """A request that succeeded."""
    return RequestRecord(f"request-{at:g}", at, at + late, at + seconds, 5, region)


def lost(at: float, error: str = "status 503: no healthy upstream", seconds: float = 0.1) -> RequestRecord:
    """A request that failed."""
    return RequestRecord(f"request-{at:g}", at, at, at + seconds, 5, "", error)


def stream(ended: float, outcome: StreamOutcome = StreamOutcome.COMPLETED) -> StreamRecord:
    """A stream of five seconds."""
    error = "" if outcome is StreamOutcome.COMPLETED else "ended without [DONE]"
    return StreamRecord(f"stream-{ended:g}", ended - 5, ended, 250, 250, "us-east", outcome, error)


def steady(until: float, step: float = 0.5) -> list[RequestRecord]:
    """Requests that all succeed, at 0, `step`, 2 `step` …"""
    return [answered(number * step) for number in range(int(until / step))]


def killed(asked: float = 2.0, heal: float = 4.0) -> Fault:
    """us-east is killed, and healed a second later than that is asked for."""
    return Fault("kill", "us-east", asked, asked + 0.25, heal, heal + 1)


def run_of(records: Records, fault: Fault | None = None) -> Run:
    """A run that has these records."""
    spec = LoadSpec("http://127.0.0.1:1", "tiny", rate=2, seconds=10, headers={"Authorization": "Bearer secret"})
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return Run(
        spec, measure(records, [fault] if fault else []), LoadCost(0.5, 10.0), moment, moment, {"python": "3.11"}
    )
