"""The OpenAI API of a real engine with the tiny model."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytestmark = pytest.mark.integration
Engine = Any  # tests/integration/engine/conftest.py: EngineProcess

END_TOKEN = 1
CHAT = [{"role": "user", "content": "Tell me something."}]


def events(body: str) -> list[dict[str, Any]]:
    """The JSON of each event of a complete stream."""
    lines = body.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def test_the_model_is_listed_under_its_served_name(engine: Engine) -> None:
    (model,) = engine.client.get("/v1/models").json()["data"]
    assert (model["id"], model["max_model_len"]) == ("tiny", 8192)


@pytest.mark.parametrize("http2", [False, True])
def test_http1_and_http2_without_tls_are_served_on_one_port(engine: Engine, http2: bool) -> None:
    with engine.connect(http2) as client:
        answer = client.post("/v1/completions", json={"model": "tiny", "prompt": "Hi", "max_tokens": 2})
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2" if http2 else "HTTP/1.1")


def test_a_completion_has_text_usage_and_a_finish_reason(engine: Engine) -> None:
    answer = engine.ask(max_tokens=8).json()
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 8
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 8


def test_greedy_answers_are_the_same_alone_and_in_a_crowd(engine: Engine) -> None:
    alone = [engine.ask(prompt=f"Story {n}", max_tokens=40).json()["choices"] for n in range(12)]
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(engine.ask, prompt=f"Story {n}", max_tokens=40) for n in range(12)]
        crowd = [answer.result().json()["choices"] for answer in asked]
    assert crowd == alone


def test_a_seed_makes_a_sampled_answer_repeatable(engine: Engine) -> None:
    sampled = {"temperature": 1.0, "max_tokens": 30}
    same = [engine.ask(seed=5, **sampled).json()["choices"] for _ in range(2)]
    other = engine.ask(seed=6, **sampled).json()["choices"]
    without = [engine.ask(**sampled).json()["choices"] for _ in range(2)]
    assert same[0] == same[1]
    assert same[0] != other
    assert without[0] != without[1]


def test_a_stream_carries_the_same_text_and_ids_as_a_whole_answer(engine: Engine) -> None:
    asked = {"max_tokens": 60, "return_token_ids": True}
    whole = engine.ask(**asked).json()
    parts = events(engine.ask(stream=True, stream_options={"include_usage": True}, **asked).text)
    choices = [choice for part in parts for choice in part["choices"]]
    assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
    assert [id for choice in choices for id in choice["token_ids"]] == whole["choices"][0]["token_ids"]
    assert choices[0]["prompt_token_ids"] == whole["choices"][0]["prompt_token_ids"]
    assert [choice["finish_reason"] for choice in choices[-2:]] == [None, "length"]
    assert parts[-1]["choices"] == []
    assert parts[-1]["usage"] == whole["usage"]


def test_a_chat_streams_the_same_text_as_it_answers(engine: Engine) -> None:
    asked = {"model": "tiny", "messages": CHAT, "max_completion_tokens": 20, "temperature": 0}
    whole = engine.client.post("/v1/chat/completions", json=asked).json()
    streamed = engine.client.post("/v1/chat/completions", json={**asked, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    deltas = [part["choices"][0]["delta"] for part in events(streamed.text)]
    assert deltas[0]["role"] == "assistant"
    message = whole["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "".join(delta.get("content", "") for delta in deltas)}


@pytest.mark.parametrize("after", [1, 2, 15, 16, 17, 40, 63])
def test_a_fresh_request_with_the_first_ids_continues_exactly(engine: Engine, after: int) -> None:
    whole = engine.ask(max_tokens=64, return_token_ids=True).json()["choices"][0]
    prompt = whole["prompt_token_ids"] + whole["token_ids"][:after]
    rest = engine.ask(prompt=prompt, max_tokens=64 - after, return_token_ids=True).json()["choices"][0]
    assert whole["token_ids"][:after] + rest["token_ids"] == whole["token_ids"]
    assert whole["text"].endswith(rest["text"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_answer_before_itself(engine: Engine, stream: bool) -> None:
    full = engine.ask(max_tokens=64).json()["choices"][0]["text"]
    stop = full[20:25]
    answer = engine.ask(max_tokens=64, stop=[stop, "never"], stream=stream)
    choices = [part["choices"][0] for part in (events(answer.text) if stream else [answer.json()])]
    assert "".join(choice["text"] for choice in choices) == full[: full.index(stop)]
    assert choices[-1]["finish_reason"] == "stop"


def test_the_end_token_ends_an_answer_unless_it_is_ignored(engine: Engine) -> None:
    def answers(ignore_eos: bool) -> list[dict[str, Any]]:
        asked = {"max_tokens": 400, "temperature": 2, "return_token_ids": True, "ignore_eos": ignore_eos}
        with ThreadPoolExecutor(16) as pool:
            pending = [pool.submit(engine.ask, seed=seed, **asked) for seed in range(16)]
            return [answer.result().json()["choices"][0] for answer in pending]

    ended = [answer for answer in answers(ignore_eos=False) if answer["finish_reason"] == "stop"]
    assert ended
    assert all(answer["token_ids"].index(END_TOKEN) == len(answer["token_ids"]) - 1 for answer in ended)
    ignored = answers(ignore_eos=True)
    assert all((len(answer["token_ids"]), answer["finish_reason"]) == (400, "length") for answer in ignored)
    assert any(END_TOKEN in answer["token_ids"] for answer in ignored)


def test_the_answer_is_named_by_the_request_id(engine: Engine) -> None:
    body = {"model": "tiny", "prompt": "Hi", "max_tokens": 1}
    answer = engine.client.post("/v1/completions", json=body, headers={"x-request-id": "abc-1"})
    assert (answer.json()["id"], answer.headers["x-request-id"]) == ("abc-1", "abc-1")
    assert engine.ask(max_tokens=1).json()["id"].startswith("cmpl-")


@pytest.mark.parametrize(
    ("status", "code", "fields"),
    [
        (404, "model_not_found", {"model": "other"}),
        (400, "context_length_exceeded", {"prompt": [5] * 8192}),
        (400, "context_length_exceeded", {"max_tokens": 8192}),
        (400, "invalid_prompt", {"prompt": [512]}),
        (400, None, {"prompt": ""}),
        (400, None, {"max_tokens": 0}),
        (400, None, {"n": 2}),
        (400, None, {"temperature": "hot"}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_impossible_request_is_refused_and_the_engine_lives_on(
    engine: Engine, status: int, code: str | None, fields: dict[str, Any], stream: bool
) -> None:
    refused = engine.ask(stream=stream, **fields)
    assert refused.status_code == status
    error = refused.json()["error"]
    assert error["code"] == code
    assert error["type"] == "invalid_request_error"
    assert engine.ask(max_tokens=1).status_code == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_json_object_is_refused(engine: Engine, body: bytes) -> None:
    refused = engine.client.post("/v1/completions", content=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("http2", [False, True])
def test_a_body_that_is_too_large_is_refused(engine: Engine, http2: bool) -> None:
    with engine.connect(http2) as client:
        refused = client.post("/v1/completions", content=b" " * (8 * 1024 * 1024 + 1))
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")
    assert engine.ask(max_tokens=1).status_code == 200


def test_unknown_paths_and_wrong_methods_get_json_errors(engine: Engine) -> None:
    unknown, wrong = engine.client.get("/v1/nothing"), engine.client.get("/v1/completions")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


def test_metrics_count_what_was_served(engine: Engine) -> None:
    before = engine.metric("vllm:generation_tokens_total"), engine.metric("vllm:prompt_tokens_total")
    used = engine.ask(max_tokens=7).json()["usage"]
    assert engine.metric("vllm:generation_tokens_total") == before[0] + 7
    assert engine.metric("vllm:prompt_tokens_total") == before[1] + used["prompt_tokens"]
    assert engine.metric("vllm:request_success_total", finished_reason="length", model_name="tiny") > 0
