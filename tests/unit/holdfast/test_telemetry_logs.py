"""Log lines that machines read."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from holdfast.telemetry import logs

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """What this process logs, and how, is the test runner's again afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, {name: logging.getLogger(name).level for name in logs.HELD_BACK}
    yield
    root.handlers[:], levels = before[0], before[2]
    root.setLevel(before[1])
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.usefixtures("as_it_was")
def test_a_json_line_is_one_line_whatever_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json")
    logging.getLogger("a.b").warning("two\nlines, %s", 'a "quote" and ü')
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("a.b").exception("it failed")

    plain, failed = lines(capsys)
    assert (plain["level"], plain["logger"], plain["message"]) == ("warning", "a.b", 'two\nlines, a "quote" and ü')
    assert datetime.fromisoformat(plain["time"]).utcoffset() is not None
    assert plain["time"].endswith("Z")
    assert "ValueError: no" in failed["exception"]


@pytest.mark.usefixtures("as_it_was")
async def test_a_line_names_the_request_of_its_task_and_of_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json")

    async def work(name: str) -> None:
        logs.belong_to({"x-request-id": name, "traceparent": PARENT}, service="default/chat", span_id="0" * 16)
        await asyncio.sleep(0)
        logging.getLogger("work").info("done")

    await asyncio.gather(work("r1"), work("r2"))
    logging.getLogger("work").info("outside")

    first, second, outside = lines(capsys)
    assert (first["request_id"], second["request_id"]) == ("r1", "r2")
    assert first["trace_id"] == PARENT.split("-")[1]
    assert (first["span_id"], first["service"]) == ("0" * 16, "default/chat")
    assert "request_id" not in outside


@pytest.mark.usefixtures("as_it_was")
def test_libraries_that_would_print_secrets_are_held_back(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("text", logging.DEBUG)
    logging.getLogger("kubernetes.aio.client.rest").debug("response body: a Secret")
    logging.getLogger("ours").debug("told")
    said = capsys.readouterr().err
    assert "Secret" not in said
    assert "told" in said


@pytest.mark.parametrize("given", ["", "00", "00-1-2-01", "nonsense-of-a-client-", "00-" + "0" * 32])
def test_a_header_that_names_no_trace_is_no_trace(given: str) -> None:
    assert logs.trace_of(given) == {}
