"""What every engine behind the port must keep, seen through the shim's HTTP API: one list of expectations for all.

`openvino` is the real CPU engine. `vllm` is vLLM's side of the port with a stand-in for the child process that speaks
vLLM's HTTP API. With HOLDFAST_VLLM_PYTHON and HOLDFAST_VLLM_MODEL set (`make test-vllm` does), it is the real vLLM;
with HOLDFAST_TRITON_SERVER and HOLDFAST_TRITON_MODELS (`make test-triton`) the real Triton, with a model that tells
token ids and one that does not.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.engine.engines import KINDS, LONG, EngineKind, wait_for, wait_gone

from holdfast_engine.app import PROBE_HEADER

pytestmark = pytest.mark.integration
Launch = Callable[..., Any]
Post = Callable[..., Any]
CHAT = [{"role": "user", "content": "Tell me something."}]


def events(body: str) -> list[dict[str, Any]]:
    """The JSON of each event of a complete stream."""
    lines = body.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> EngineKind:
    found: EngineKind = request.param
    return found


@pytest.fixture(scope="module")
def shared(kind: EngineKind, model: Path) -> Iterator[Any]:
    """An engine that the tests share which leave it as it was."""
    engine = kind.start(model)
    try:
        yield engine.wait_ready()
    finally:
        engine.stop()


@pytest.fixture
def own(kind: EngineKind, model: Path) -> Iterator[Launch]:
    """Start an engine of the test's own with options of the shim, slow enough to be met at work."""
    started: list[Any] = []

    def start(*options: str) -> Any:
        started.append(kind.start(model, *options, paced=True))
        return started[-1]

    yield start
    for engine in started:
        engine.stop()


@pytest.fixture
def ids(kind: EngineKind) -> None:
    """For tests that are about token ids."""
    if not kind.tells_ids:
        pytest.skip("this engine gives text alone")


@pytest.fixture
def chats(kind: EngineKind) -> None:
    if not kind.chats:
        pytest.skip("this engine takes text alone: nobody knows the model's chat template")


@pytest.fixture
def logprobs(kind: EngineKind) -> None:
    if kind.alternatives is None:
        pytest.skip("this engine tells no log probabilities, and refuses to be asked for them")


def test_the_model_is_listed_under_its_served_name(shared: Any) -> None:
    (model,) = shared.client.get("/v1/models").json()["data"]
    assert model["id"] == "tiny"
    assert model["max_model_len"] == 8192


def test_an_idle_engine_is_ready_and_alive(shared: Any) -> None:
    assert (shared.status("/health"), shared.status("/livez")) == (200, 200)
    assert shared.client.get("/progress").json()["state"] == "awake"


def test_a_completion_has_text_usage_and_a_finish_reason(shared: Any) -> None:
    answer = shared.ask(max_tokens=8, ignore_eos=True).json()
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 8
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 8


def test_a_stream_carries_the_same_text_ids_and_usage_as_a_whole_answer(shared: Any, kind: EngineKind) -> None:
    asked = {"max_tokens": 40, "return_token_ids": kind.tells_ids}
    whole = shared.ask(**asked).json()
    parts = events(shared.ask(stream=True, stream_options={"include_usage": True}, **asked).text)
    choices = [choice for part in parts for choice in part["choices"]]
    assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
    assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert parts[-1]["usage"] == whole["usage"]
    if kind.tells_ids:
        assert [id for choice in choices for id in choice["token_ids"]] == whole["choices"][0]["token_ids"]
        assert choices[0]["prompt_token_ids"] == whole["choices"][0]["prompt_token_ids"]


def test_a_chat_streams_the_same_text_as_it_answers(shared: Any, chats: None) -> None:
    asked = {"model": "tiny", "messages": CHAT, "max_completion_tokens": 20, "temperature": 0, "return_token_ids": True}
    whole = shared.client.post("/v1/chat/completions", json=asked).json()
    streamed = events(shared.client.post("/v1/chat/completions", json={**asked, "stream": True}).text)
    deltas = [part["choices"][0]["delta"] for part in streamed]
    assert deltas[0]["role"] == "assistant"
    text = "".join(delta.get("content", "") for delta in deltas)
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": text}
    assert whole["usage"]["prompt_tokens"] == len(whole["prompt_token_ids"])
    assert streamed[0]["prompt_token_ids"] == whole["prompt_token_ids"]


def test_log_probabilities_come_with_each_token_whole_and_streamed(
    shared: Any, kind: EngineKind, logprobs: None
) -> None:
    asked = {"max_tokens": 12, "logprobs": kind.alternatives, "return_token_ids": True}
    whole = shared.ask(**asked).json()["choices"][0]
    parts = [part["choices"][0] for part in events(shared.ask(stream=True, **asked).text)]
    told = whole["logprobs"]
    assert len(told["tokens"]) == len(told["token_logprobs"]) == len(whole["token_ids"])
    assert "".join(told["tokens"]) == whole["text"]
    for value, top in zip(told["token_logprobs"], told["top_logprobs"], strict=True):
        assert value < 0
        assert list(top.values()) == sorted(top.values(), reverse=True)
        assert len(top) == kind.alternatives
        assert not top or max(top.values()) == value  # the answer is greedy
    assert [token for part in parts for token in part["logprobs"]["tokens"]] == told["tokens"]
    streamed = [value for part in parts for value in part["logprobs"]["token_logprobs"]]
    assert streamed == pytest.approx(told["token_logprobs"], abs=1e-3)


def test_a_chats_log_probabilities_have_the_bytes_of_its_text(
    shared: Any, kind: EngineKind, logprobs: None, chats: None
) -> None:
    asked = {"model": "tiny", "messages": CHAT, "max_tokens": 12, "temperature": 0, "logprobs": True}
    asked |= {"top_logprobs": kind.alternatives}
    choice = shared.client.post("/v1/chat/completions", json=asked).json()["choices"][0]
    content = choice["logprobs"]["content"]
    assert bytes(byte for token in content for byte in token["bytes"]).decode() == choice["message"]["content"]
    assert {len(token["top_logprobs"]) for token in content} == {kind.alternatives}


@pytest.mark.parametrize("after", [1, 16, 31])
def test_a_fresh_request_with_the_first_ids_continues_exactly(shared: Any, ids: None, after: int) -> None:
    whole = shared.ask(max_tokens=32, return_token_ids=True).json()["choices"][0]
    prompt = whole["prompt_token_ids"] + whole["token_ids"][:after]
    rest = shared.ask(prompt=prompt, max_tokens=32 - after, return_token_ids=True).json()["choices"][0]
    assert whole["token_ids"][:after] + rest["token_ids"] == whole["token_ids"]
    assert rest["prompt_token_ids"] == prompt


def test_a_seed_makes_a_sampled_answer_repeatable(shared: Any) -> None:
    sampled = {"temperature": 1.0, "max_tokens": 30}
    same = [shared.ask(seed=5, **sampled).json()["choices"] for _ in range(2)]
    assert same[0] == same[1]
    assert same[0] != shared.ask(seed=6, **sampled).json()["choices"]


@pytest.mark.parametrize("with_ids", [False, True], ids=["text", "ids"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_stop_string_ends_the_answer_before_itself(
    shared: Any, kind: EngineKind, stream: bool, with_ids: bool
) -> None:
    if with_ids and not kind.tells_ids:
        pytest.skip("this engine gives text alone")
    full = shared.ask(max_tokens=64, return_token_ids=kind.tells_ids).json()["choices"][0]
    stop = full["text"][20:25]
    answer = shared.ask(max_tokens=64, stop=[stop, "never"], stream=stream, return_token_ids=with_ids)
    choices = [part["choices"][0] for part in (events(answer.text) if stream else [answer.json()])]
    assert "".join(choice["text"] for choice in choices) == full["text"][: full["text"].index(stop)]
    assert choices[-1]["finish_reason"] == "stop"
    if with_ids:
        used = [id for choice in choices for id in choice["token_ids"]]
        assert used == full["token_ids"][: len(used)]
        assert len(used) < len(full["token_ids"])


@pytest.mark.parametrize(
    ("status", "code", "fields"),
    [
        (404, "model_not_found", {"model": "other"}),
        (400, "context_length_exceeded", {"prompt": [5] * 8192}),
        (400, "invalid_prompt", {"prompt": [512]}),
        (400, None, {"max_tokens": 0}),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_impossible_request_is_refused_and_the_engine_lives_on(
    shared: Any, kind: EngineKind, status: int, code: str | None, fields: dict[str, Any], stream: bool
) -> None:
    if "prompt" in fields and not kind.tells_ids:
        pytest.skip("this engine takes text alone")
    refused = shared.ask(stream=stream, **fields)
    assert refused.status_code == status
    error = refused.json()["error"]
    assert (error["code"], error["type"]) == (code, "invalid_request_error")
    assert shared.ask(max_tokens=1).status_code == 200


def test_an_engine_that_knows_no_token_ids_gives_none_and_takes_none(shared: Any, kind: EngineKind) -> None:
    if kind.tells_ids:
        pytest.skip("this engine tells token ids")
    for stream in (False, True):
        answer = shared.ask(return_token_ids=True, stream=stream)
        (part, *_) = events(answer.text) if stream else [answer.json()]
        assert part["choices"][0]["text"]
        assert not {"token_ids", "prompt_token_ids"} & {*part, *part["choices"][0]}
    refused = shared.ask(prompt=[5, 6])
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported")


def test_metrics_count_users_requests_and_no_observers(shared: Any) -> None:
    names = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:time_to_first_token_seconds_count")
    before = [shared.metric(name) for name in names]
    used = shared.ask(max_tokens=7, ignore_eos=True).json()["usage"]
    probe = {"model": "tiny", "prompt": "ping", "max_tokens": 1}
    answer = shared.client.post("/v1/completions", json=probe, headers={PROBE_HEADER: "1"})
    assert answer.json()["usage"]["completion_tokens"] == 1
    after = [shared.metric(name) for name in names]
    assert [now - then for now, then in zip(after, before, strict=True)] == [7, used["prompt_tokens"], 1]


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_generation_stops_in_the_engine_when_its_client_leaves(
    shared: Any, kind: EngineKind, post_raw: Post, http2: bool, stream: bool
) -> None:
    before = shared.metric("vllm:generation_tokens_total")
    request = post_raw(shared, http2, max_tokens=LONG, stream=stream, ignore_eos=True)
    wait_for(lambda: shared.metric("vllm:generation_tokens_total") > before, "a first token")
    request.leave()
    shared.wait_load(running=0)
    wait_for(lambda: kind.works_on(shared) == 0, "the engine itself to be idle")
    assert shared.metric("vllm:generation_tokens_total") < before + LONG


def test_sigterm_lets_streams_finish_and_refuses_new_requests(own: Launch, post_raw: Post) -> None:
    engine = own().wait_ready()
    whole = post_raw(engine, http2=True, max_tokens=100, ignore_eos=True)
    stream = post_raw(engine, max_tokens=100, stream=True, ignore_eos=True)
    last = post_raw(engine, max_tokens=LONG, ignore_eos=True)
    stream.read_until(b"data: ")
    child = engine.worker_pid()
    engine.process.send_signal(signal.SIGTERM)
    wait_for(lambda: engine.status() == 503, "the drain to begin")
    refused = engine.ask()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["connection"] == "close"
    assert engine.status("/livez") == 200
    stream.read_until(b"data: [DONE]")
    whole.read_until(b'"finish_reason":"length"')
    last.leave()
    assert engine.process.wait(60) == 0
    wait_gone(child)


def test_a_second_sigterm_ends_at_once(own: Launch, post_raw: Post) -> None:
    engine = own().wait_ready()
    post_raw(engine, max_tokens=LONG, ignore_eos=True)
    engine.wait_load(running=1)
    child = engine.worker_pid()
    engine.process.send_signal(signal.SIGTERM)
    wait_for(lambda: engine.status() == 503, "the drain to begin")
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(60) == 128 + signal.SIGTERM
    wait_gone(child)


def test_the_engines_process_does_not_outlive_its_shim(own: Launch) -> None:
    engine = own().wait_ready()
    child = engine.worker_pid()
    engine.process.kill()
    wait_gone(child)


def test_a_killed_engine_fails_its_requests_and_ends_the_container_with_the_cause(
    own: Launch, post_raw: Post, tmp_path: Path
) -> None:
    message = tmp_path / "termination-log"
    message.touch()
    engine = own("--termination-log", str(message)).wait_ready()
    stream = post_raw(engine, max_tokens=LONG, stream=True, ignore_eos=True)
    whole = post_raw(engine, max_tokens=LONG, ignore_eos=True)
    stream.read_until(b"data: ")
    engine.wait_load(running=2)
    os.kill(engine.worker_pid(), signal.SIGKILL)
    stream.read_until(b'data: {"error":')
    whole.read_until(b"HTTP/1.1 503")
    assert engine.process.wait(60) != 0
    assert message.read_text() == "Killed: Ended by signal 9, as by the kernel when memory runs out.\n"


def test_a_frozen_engine_is_noticed_and_forgiven_when_it_goes_on(own: Launch, post_raw: Post) -> None:
    engine = own("--progress-timeout", "4").wait_ready()
    stream = post_raw(engine, http2=True, max_tokens=LONG, stream=True, ignore_eos=True)
    whole = post_raw(engine, http2=True, max_tokens=LONG, ignore_eos=True)
    stream.read_until(b"data: ")
    engine.wait_load(running=2)
    frozen_at = time.monotonic()
    os.kill(engine.worker_pid(), signal.SIGSTOP)
    whole.read_until(b'"code":"stalled"')
    stream.read_until(b'data: {"error":')
    print(f"noticed after {time.monotonic() - frozen_at:.1f} s")
    refused = engine.client.get("/livez")
    assert (refused.status_code, refused.json()["reason"]) == (503, "stalled")
    assert engine.status("/health") == 503
    os.kill(engine.worker_pid(), signal.SIGCONT)
    wait_for(lambda: engine.status("/health") == 200, "the engine to be ready again")
    engine.wait_load(running=0)
    assert engine.ask(max_tokens=2).status_code == 200
