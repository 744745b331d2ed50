"""The load's process against real engines: it counts what succeeds, and it sees what fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from holdfast_chaos.client import LoadSpec
from holdfast_chaos.errors import LoadError
from holdfast_chaos.load_process import LoadProcess
from holdfast_chaos.measure import measure
from holdfast_chaos.records import Records, RequestRecord, StreamOutcome

pytestmark = pytest.mark.integration


def spec(server: Any, **changes: Any) -> LoadSpec:
    return LoadSpec(**{"url": server.url, "model": "tiny", "rate": 20, "seconds": 4, "streams": 3, **changes})


def run(load_spec: LoadSpec) -> Records:
    with LoadProcess(load_spec) as load:
        load.wait_begun()
        return load.result()


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "holdfast_chaos", *words], capture_output=True, text=True, timeout=300)


def test_against_a_healthy_engine_every_request_and_stream_is_right(engine: Any) -> None:
    records = run(spec(engine))

    assert [request.error for request in records.requests] == [""] * 80
    assert len(records.streams) >= 3
    assert {stream.outcome for stream in records.streams} == {StreamOutcome.COMPLETED}
    assert all(request.sent >= request.scheduled for request in records.requests)
    assert len({record.id for record in (*records.requests, *records.streams)}) == 80 + len(records.streams)


def test_an_engine_killed_midway_shows_as_failed_requests_and_truncated_streams(engine: Any) -> None:
    def some_answers_came() -> bool:
        return sum(isinstance(record, RequestRecord) for record in list(load.records)) >= 10

    with LoadProcess(spec(engine, seconds=8)) as load:
        load.wait_begun()
        pause = threading.Event()
        while not some_answers_came() and load.running:
            pause.wait(0.05)
        killed_at = load.elapsed()
        engine.kill()
        records = load.result()
    measured = measure(records)

    assert measured.requests == 160
    assert measured.requests_failed > 0
    assert any(request.ok for request in records.requests)
    assert not any(request.ok for request in records.requests if request.scheduled > killed_at + 1)
    assert measured.streams[StreamOutcome.TRUNCATED] == 3
    assert measured.streams[StreamOutcome.FAILED] > 0


def test_a_load_that_is_finished_early_sends_nothing_more_and_waits_for_its_answers(engine: Any) -> None:
    with LoadProcess(spec(engine, seconds=60)) as load:
        load.wait_begun()
        pause = threading.Event()
        while len(load.records) < 10 and load.running:
            pause.wait(0.05)
        load.finish()
        records = load.result()

    assert 10 <= len(records.requests) < 60 * 20
    assert {request.error for request in records.requests} == {""}
    assert [stream.outcome for stream in records.streams] == [StreamOutcome.COMPLETED] * 3


def test_a_model_that_is_not_served_fails_every_request(engine: Any) -> None:
    records = run(spec(engine, model="another", seconds=1))

    assert not any(request.ok for request in records.requests)
    assert all("status 404" in request.error for request in records.requests)
    assert {stream.outcome for stream in records.streams} == {StreamOutcome.FAILED}


def test_a_load_whose_process_dies_is_an_error_and_no_result(engine: Any) -> None:
    with LoadProcess(spec(engine, seconds=60)) as load:
        load.wait_begun()
        os.kill(load.pid, signal.SIGKILL)
        with pytest.raises(LoadError, match="ended before its time"):
            load.result()


def test_leaving_a_load_ends_its_process(engine: Any) -> None:
    with LoadProcess(spec(engine, seconds=60)) as load:
        load.wait_begun()
    with pytest.raises(ProcessLookupError):
        os.kill(load.pid, 0)


def test_the_load_command_reports_and_succeeds(engine: Any, tmp_path: Path) -> None:
    done = command(
        "load", "--url", f"{engine.url}/v1", "--model", "tiny", "--rate", "10", "--seconds", "2", "--streams", "1",
        "-o", "json", "--out", str(tmp_path),
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["requests"] == {"total": 20, "ok": 20, "failed": 0}
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "timeline.png", "records.jsonl"}


def test_the_load_command_fails_with_a_sentence_when_requests_fail(engine: Any) -> None:
    engine.kill()
    done = command("load", "--url", engine.url, "--model", "tiny", "--rate", "10", "--seconds", "1", "--streams", "1")

    assert done.returncode == 1
    assert "10 of 10 requests failed" in done.stderr
    assert "no connection" in done.stdout
