"""The relay as a process, before upstreams that fail in every way: what its clients get."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.integration.gateway.outbound_stand_in import DONE, chunk, lost, refusal, stream
from tests.integration.gateway.relay_bench import BEGIN, REST, Bench, told

from holdfast_gateway.render.streams import STREAMS

pytestmark = pytest.mark.integration

ERROR = b'data: {"error": {"message": "stalled", "code": "stalled"}}\n\n'
LOSSES = {
    "reset": (stream(BEGIN, end="reset"), "reset"),
    "ends": (stream(BEGIN), "ended"),
    "done-without-a-reason": (stream(BEGIN, DONE), "ended"),
    "half-an-event": (stream(BEGIN, b'data: {"id": "x", "choi', end="reset"), "reset"),
    "error-event": (stream(BEGIN, ERROR), "error"),
    "gives-up": (stream(BEGIN, chunk("", [], "abort"), DONE), "error"),
    "no-json": (stream(BEGIN, b"data: {oops\n\n", end="hang"), "malformed"),
    "no-utf-8": (stream(BEGIN, b"data: \xff\xfe\n\n", end="hang"), "malformed"),
    "no-chunk": (stream(BEGIN, b"data: []\n\n", end="hang"), "malformed"),
    "endless-event": (stream(BEGIN, b"data: " + b"x" * 5_000_000, end="hang"), "malformed"),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_whatever_befalls_an_engine_another_one_goes_on(bench: Bench, loss: str) -> None:
    script, reason = LOSSES[loss]
    await bench.start(us=script, eu=REST)
    response = await bench.ask()
    assert told(response) == ("abcd", "stop", "[DONE]")
    assert ": resumed from us in eu" in response.text
    assert response.headers["x-holdfast-resumable"] == "true"
    (_, first), (region, second) = bench.outbound.asked
    assert (region, second["prompt"], second["max_tokens"]) == ("eu", [7, 1, 2], 7)
    assert first["return_token_ids"] is second["return_token_ids"] is True
    assert "token_ids" not in response.text
    assert bench.metric(f'holdfast_relay_resumes_total{{reason="{reason}",region="eu"}}') == 1
    assert bench.metric("holdfast_relay_pause_seconds_count") == 1
    assert bench.metric("holdfast_relay_tokens_total") == 4
    await bench.eventually("holdfast_relay_open_streams", 0)
    assert bench.metric('holdfast_relay_streams_total{outcome="continued"}') == 1


async def test_what_another_model_began_the_services_own_engines_do_not_go_on_with(bench: Bench) -> None:
    await bench.start(us=stream(BEGIN, end="reset", x_holdfast_model="tiny"), eu=REST)
    response = await bench.ask()
    assert (response.headers["x-holdfast-model"], response.headers["x-holdfast-resumable"]) == ("tiny", "false")
    assert json.loads(told(response)[2])["error"]["code"] == "stream_not_resumable"
    assert len(bench.outbound.asked) == 1


async def test_an_engine_that_adds_no_token_for_too_long_is_given_up(bench: Bench) -> None:
    bench.describe(progress=0.5)
    await bench.start(us=stream(BEGIN, 0.1, b": alive\n\n", end="hang"), eu=REST)
    assert told(await bench.ask()) == ("abcd", "stop", "[DONE]")
    assert bench.metric('holdfast_relay_resumes_total{reason="stalled",region="eu"}') == 1


async def test_a_region_that_cannot_go_on_is_passed_over_and_its_attempt_is_no_resume(bench: Bench) -> None:
    bench.describe(("us", "ap", "sa", "eu"), resumes=1)
    await bench.start(
        "--resume-timeout", "0.5", us=stream(BEGIN, end="reset"), ap=refusal(503), sa=stream(end="hang"), eu=REST
    )
    assert told(await bench.ask()) == ("abcd", "stop", "[DONE]")
    assert [region for region, _ in bench.outbound.asked] == ["us", "ap", "sa", "eu"]
    assert [headers["x-request-id"] for headers in bench.outbound.headers] == ["r", "r-2", "r-3", "r-4"]


async def test_the_last_region_may_take_its_time(bench: Bench) -> None:
    rest = (chunk("c", [3], prompt=[7, 1, 2]), chunk("d", [4], "stop"), DONE)
    await bench.start("--resume-timeout", "0.2", us=stream(BEGIN, end="reset"), eu=stream(1.5, *rest))
    assert told(await bench.ask()) == ("abcd", "stop", "[DONE]")
    assert [region for region, _ in bench.outbound.asked] == ["us", "eu"]


async def test_the_only_region_is_asked_until_it_goes_on(bench: Bench) -> None:
    bench.describe(("us",))
    again = stream(chunk("c", [3], "stop"), DONE)
    await bench.start(us=[stream(BEGIN, end="reset"), refusal(503), lost, refusal(503), again])
    assert told(await bench.ask()) == ("abc", "stop", "[DONE]")


async def test_a_stream_whose_resumes_are_used_up_ends_with_an_error_and_no_end(bench: Bench) -> None:
    bench.describe(resumes=1)
    await bench.start(us=stream(BEGIN, end="reset"), eu=stream(chunk("c", [3]), end="reset"))
    text, reason, last = told(await bench.ask())
    assert (text, reason, json.loads(last)["error"]["code"]) == ("abc", None, "resumes_exhausted")
    await bench.eventually('holdfast_relay_streams_total{outcome="failed"}', 1)


async def test_a_stream_that_nobody_goes_on_with_ends_with_an_error(bench: Bench) -> None:
    await bench.start("--resume-search", "1", us=stream(BEGIN, end="reset"), eu=refusal(503))
    bench.outbound.scripts["us"].append(refusal(503))
    text, _, last = told(await bench.ask())
    assert (text, json.loads(last)["error"]["code"]) == ("ab", "no_region_left")
    assert len(bench.outbound.asked) < 20, "there are pauses"


async def test_what_every_region_finds_fault_with_is_not_asked_again(bench: Bench) -> None:
    await bench.start(us=[stream(BEGIN, end="reset"), refusal(400)], eu=refusal(400))
    _, _, last = told(await bench.ask())
    assert json.loads(last)["error"]["code"] == "no_region_left"
    assert [region for region, _ in bench.outbound.asked] == ["us", "eu", "us"]


async def test_a_stream_that_is_lost_before_its_first_event_is_begun_anew(bench: Bench) -> None:
    await bench.start(us=stream(end="reset"), eu=stream(chunk("x", [1], "stop", prompt=[7]), DONE, region="eu"))
    response = await bench.ask()
    assert told(response) == ("x", "stop", "[DONE]")
    assert response.headers["x-holdfast-region"] == "eu"
    assert "resumed" not in response.text
    (_, first), (_, second) = bench.outbound.asked
    assert first == second


async def test_a_chat_without_a_limit_goes_on_as_far_as_the_context_leaves(bench: Bench) -> None:
    def delta(text: str, ids: list[int], **first: Any) -> bytes:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, "token_ids": ids}
        chat = {"id": "c", "object": "chat.completion.chunk", "created": 5, "model": "llama", "choices": [choice]}
        return b"data: " + json.dumps({**chat, **first}).encode() + b"\n\n"

    begin = delta("a", [1], prompt_token_ids=[7] * 10) + delta("b", [2])
    await bench.start(us=stream(begin, end="reset"), eu=REST)
    response = await bench.ask("/v1/chat/completions", messages=[{"role": "user", "content": "x"}], max_tokens=None)
    region, asked = bench.outbound.asked[1]
    assert (region, asked["prompt"], asked["max_tokens"]) == ("eu", [*[7] * 10, 1, 2], 38)
    assert "messages" not in asked
    chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    assert {(each["id"], each["object"], each["created"]) for each in chunks} == {("c", "chat.completion.chunk", 5)}
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in chunks) == "abcd"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_the_agents_changes_are_followed_and_a_broken_file_changes_nothing(bench: Bench) -> None:
    bench.describe(("us",), resumes=0)
    await bench.start(us=stream(BEGIN, end="reset"), eu=REST)
    assert "error" in (await bench.ask()).text
    bench.describe(("us", "eu"))
    assert told(await bench.ask())[0] == "abcd"
    (bench.folder / STREAMS).write_text('{"services": [')
    assert told(await bench.ask())[0] == "abcd"


async def test_regions_that_changed_while_a_stream_ran_are_asked_as_they_are_now(bench: Bench) -> None:
    release = asyncio.Event()

    async def lost_later(request: Any) -> Any:
        response = await stream(BEGIN)(request)
        await release.wait()
        return response

    await bench.start(us=lost_later, eu=refusal(503), ap=REST)
    asking = asyncio.create_task(bench.ask())
    await bench.eventually("holdfast_relay_tokens_total", 2)
    bench.describe(("ap",))
    release.set()
    assert told(await asking) == ("abcd", "stop", "[DONE]")
    assert [region for region, _ in bench.outbound.asked] == ["us", "ap"]
