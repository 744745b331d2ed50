"""What Envoy spools of each request, and that its answer waits for nothing: real Envoys."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.integration.gateway.bed import Bed, Gateway, wait_for

from holdfast_gateway.render.usage import SPOOL_FILE

pytestmark = pytest.mark.integration

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """One region and an edge, both with a ledger."""
    made = Bed(tmp_path_factory.mktemp("usage"), regions={"us": 1}, ledger=True)
    with made.running():
        yield made


def lines(gateway: Gateway) -> list[Any]:
    """All that this gateway has spooled."""
    spool = gateway.directory / "ledger" / SPOOL_FILE
    return [json.loads(line) for line in spool.read_text().splitlines()] if spool.exists() else []


def ask(gateway: Gateway, request_id: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    """One request with a name of its own."""
    sent = {"x-request-id": request_id} | (headers or {})
    return httpx.post(f"{gateway.url}/v1/completions", json={"model": "llama", **fields}, headers=sent, timeout=30)


def spooled(gateway: Gateway, request_id: str, count: int = 1) -> list[Any]:
    """The lines of the requests with that name, once there are so many."""

    def found() -> list[Any]:
        return [line for line in lines(gateway) if line["request_id"] == request_id]

    wait_for(lambda: len(found()) >= count, f"{count} lines of {request_id}")
    return found()


def test_a_line_tells_who_asked_what_and_how_it_ended(bed: Bed) -> None:
    ask(bed.gateways["us"], "plain", seconds=0.2, say={"usage": USAGE, "choices": [{"text": '"prompt_tokens": 99,'}]})
    (line,) = spooled(bed.gateways["us"], "plain")
    assert (line["tokens_in"], line["tokens_out"], line["status"], line["attempts"]) == (11, 7, 200, 1)
    assert (line["model"], line["region"], line["stream"], line["flags"]) == ("llama", "us", None, "-")
    assert (line["method"], line["path"], line["cluster"]) == ("POST", "/v1/completions", "service/default/chat")
    assert 150 < line["ttft_ms"] <= line["latency_ms"]
    assert len(line["id"]) == 36


def test_each_request_has_an_id_that_no_client_can_choose_and_no_engine_sees(bed: Bed) -> None:
    edge = bed.gateways["edge"]
    wish = {"x-holdfast-record": "mine", "x-holdfast-service": "mine"}
    seen = [ask(edge, "wish", wish).json()["headers"] for _ in range(2)]
    refused = httpx.post(f"{edge.url}/v1/completions", content=b"{", headers=wish | {"x-request-id": "wish"})
    assert refused.status_code == 400
    found = spooled(edge, "wish", 3)
    assert len({line["id"] for line in found} - {"mine"}) == 3
    assert all("x-holdfast-record" not in headers for headers in seen)
    assert not [line for line in lines(bed.gateways["us"]) if line["request_id"] == "wish"], (
        "only whom the client asked"
    )


def test_health_checks_and_probes_have_no_line(bed: Bed) -> None:
    gateway = bed.gateways["us"]
    assert httpx.get(f"{gateway.url}/ready").status_code == 200
    probe = {"x-holdfast-service": "default/chat", "x-holdfast-probe": "1", "x-request-id": "probe"}
    assert httpx.post(f"{gateway.peer_url}/v1/completions", json={"model": "llama"}, headers=probe).status_code == 200
    ask(gateway, "after")
    spooled(gateway, "after")
    assert all(line["path"] != "/ready" and line["request_id"] != "probe" for line in lines(gateway))


def test_strange_names_make_a_line_all_the_same(bed: Bed) -> None:
    url = f"{bed.gateways['us'].url}/v1/completions"
    models = ['"', "\x00\x1f\n", "\ud800", "é💥", "x" * 5000, 7, None, ["a"], {"b": 1}]
    bodies = [json.dumps({"model": model}).encode() for model in models]
    for number, body in enumerate([*bodies, b'{"model": "\xff\xfe"}', b"\xff"]):
        httpx.post(url, content=body, headers={"x-request-id": f"strange-{number}"})
        (line,) = spooled(bed.gateways["us"], f"strange-{number}")
        assert line["status"] in (400, 404)
        assert len(line["model"] or "") <= 256
    before = len(lines(bed.gateways["us"]))
    httpx.post(url, json={"model": "llama"}, headers=[(b"x-request-id", b"raw\xff\xe9")])
    wait_for(lambda: len(lines(bed.gateways["us"])) == before + 1, "its line")


def test_an_answer_larger_than_every_buffer_is_given_and_counted(bed: Bed) -> None:
    size = 16 * 1024 * 1024
    answer = ask(bed.gateways["us"], "large", large=size, say={"usage": USAGE})
    assert len(answer.content) > size
    (line,) = spooled(bed.gateways["us"], "large")
    assert line["tokens_out"] == 7


def test_a_stream_is_not_held_back_and_its_usage_is_seen_across_chunks(bed: Bed) -> None:
    text = json.dumps({"choices": [], "usage": USAGE})
    events = ["data: {}\n\n", f"data: {text[:40]}", f"{text[40:]}\n\n", "data: [DONE]\n\n"]
    sent = {"model": "llama", "events": events, "pause": 0.4}
    begun = time.monotonic()
    with httpx.stream(
        "POST", f"{bed.gateways['us'].url}/v1/completions", json=sent, headers={"x-request-id": "stream"}, timeout=30
    ) as response:
        reading = response.iter_raw()
        next(reading)
        first = time.monotonic() - begun
        rest = b"".join(reading)
    whole = time.monotonic() - begun
    assert b"[DONE]" in rest
    assert first < whole / 2, "the first part came while the engine still wrote"
    (line,) = spooled(bed.gateways["us"], "stream")
    assert (line["tokens_in"], line["tokens_out"]) == (11, 7)
    assert line["ttft_ms"] < line["latency_ms"] / 2


def test_a_client_that_leaves_is_told_apart(bed: Bed) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{bed.gateways['us'].url}/v1/completions", json={"model": "llama", "seconds": 20}, timeout=0.5,
            headers={"x-request-id": "gone"},
        )  # fmt: skip
    (line,) = spooled(bed.gateways["us"], "gone")
    assert "DC" in line["flags"]
