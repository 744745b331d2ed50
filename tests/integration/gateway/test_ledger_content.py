"""Records with the beginnings of requests and answers, which nobody has who did not switch it on: real Envoys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.integration.gateway.bed import Bed
from tests.integration.gateway.test_usage import ask, spooled

from holdfast_gateway.ledger.record import Source, loaded, read

pytestmark = pytest.mark.integration
MOST = 1000


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """One region whose records hold content."""
    made = Bed(tmp_path_factory.mktemp("content"), regions={"us": 1}, ledger=True, ledger_content=MOST)
    with made.running(edge=False):
        yield made


def line_of(bed: Bed, name: str) -> Any:
    """The line of the request with this name, as a record that was written and read again."""
    (line,) = spooled(bed.gateways["us"], name)
    record = read(Source.ENVOY, line, "us", "").record
    assert loaded(json.loads(record.line())) == record
    return record


def test_a_record_holds_request_and_answer_as_they_were(bed: Bed) -> None:
    answer = ask(bed.gateways["us"], "both", prompt="grüße", say={"choices": [{"text": "ja"}]})
    record = line_of(bed, "both")
    assert json.loads(record.request)["prompt"] == "grüße"
    assert record.response == answer.text


def test_what_is_longer_is_cut_between_two_characters(bed: Bed) -> None:
    for shift in range(4):
        text = "x" * shift + "…" * MOST
        ask(bed.gateways["us"], f"long-{shift}", prompt=text, say={"choices": [{"text": text}]})
        record = line_of(bed, f"long-{shift}")
        for said in (record.request, record.response):
            assert MOST - 3 <= len(said.encode()) <= MOST
            assert "�" not in said


def test_of_a_stream_the_events_are_held(bed: Bed) -> None:
    answer = ask(bed.gateways["us"], "stream", stream=True, seconds=0)
    record = line_of(bed, "stream")
    assert record.response
    assert answer.text.startswith(record.response)


def test_bodies_that_are_no_text_are_no_obstacle(bed: Bed) -> None:
    url = bed.gateways["us"].url
    answer = httpx.post(
        f"{url}/v1/completions", content=b"\xff\x00{" * 9, headers={"x-request-id": "binary"}, timeout=30
    )
    assert answer.status_code == 400
    assert line_of(bed, "binary").status == 400


def test_a_large_body_passes_whole(bed: Bed) -> None:
    answer = ask(bed.gateways["us"], "large", prompt="x" * 3_000_000)
    assert answer.status_code == 200
    assert len(line_of(bed, "large").request) == MOST
