"""What the relay does not keep: streams that cannot be continued truthfully, refusals, what is not its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.integration.gateway.outbound_stand_in import chunk, refusal, stream
from tests.integration.gateway.relay_bench import BEGIN, REST, Bench, told

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("fields", [{"n": 2}, {"logprobs": 1}, {"guided_json": {}}, {"prompt": ["a", "b"]}], ids=str)
async def test_a_stream_that_cannot_be_continued_truthfully_is_passed_on_untouched(bench: Bench, fields: Any) -> None:
    sent = BEGIN + b'event: odd\ndata: {"any": 1}\r\n\r\n'
    await bench.start(us=stream(sent, b'data: {"half', end="reset"), eu=REST)
    response = await bench.ask(**fields)
    assert response.headers["x-holdfast-resumable"] == "false"
    assert response.content.startswith(sent)
    error = response.content.removeprefix(sent)
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "stream_not_resumable"
    ((_, asked),) = bench.outbound.asked
    assert "return_token_ids" not in asked


async def test_an_engine_without_token_ids_is_passed_on(bench: Bench) -> None:
    plain = chunk("a", []).replace(b', "token_ids": []', b"")
    await bench.start(us=stream(plain, plain, end="reset"), eu=REST)
    response = await bench.ask()
    text, _, last = told(response)
    assert response.headers["x-holdfast-resumable"] == "false"
    assert (text, json.loads(last)["error"]["code"]) == ("aa", "stream_not_resumable")


async def test_without_resumes_nothing_is_resumed(bench: Bench) -> None:
    bench.describe(resumes=0)
    await bench.start(us=stream(BEGIN, end="reset"), eu=REST)
    response = await bench.ask()
    assert response.headers["x-holdfast-resumable"] == "false"
    assert json.loads(told(response)[2])["error"]["code"] == "stream_not_resumable"


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_a_refusal_is_passed_on_unchanged_and_marked_as_final(bench: Bench, status: int) -> None:
    await bench.start(us=refusal(status, b'{"error": 1}', **{"retry-after": "7"}), eu=REST)
    response = await bench.ask()
    assert (response.status_code, response.content) == (status, b'{"error": 1}')
    assert (response.headers["retry-after"], response.headers["x-envoy-ratelimited"]) == ("7", "true")
    assert len(bench.outbound.asked) == 1


async def test_an_unknown_service_is_left_to_envoy(bench: Bench) -> None:
    await bench.start(us=REST)
    async with bench.client() as client:
        response = await client.post(
            "/v1/completions", json={"stream": True}, headers={"x-holdfast-service": "no/such"}
        )
    assert response.status_code == 503
    assert "x-envoy-ratelimited" not in response.headers


async def test_a_body_that_is_too_large_is_refused(bench: Bench) -> None:
    await bench.start("--max-body", "1000", us=REST)
    response = await bench.ask(prompt="x" * 2000)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
    assert bench.outbound.asked == []
