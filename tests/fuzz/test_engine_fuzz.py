"""Generated requests against a real engine: it lives on, leaks nothing, and answers as OpenAI's API defines it.

FUZZ_REQUESTS says how many requests are sent, in crowds; SEED replays a run.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.integration.engine.conftest import DEADLINE, EngineProcess, wait_until

from holdfast_engine.tiny_model import write_tiny_model

pytestmark = pytest.mark.integration
REQUESTS = int(os.environ.get("FUZZ_REQUESTS") or 2000)
SEED = int(os.environ.get("SEED") or 0)
CROWD = 25
MOST_TOKENS = 24
COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
REFUSALS = {400, 404, 405, 408, 413, 429}

texts = st.text(max_size=40) | st.sampled_from(["Once upon", "é\U0001f600", "\x00", "stop"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
prompts = texts.filter(bool) | st.lists(st.integers(0, 511), min_size=1, max_size=30)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": texts.filter(bool)}),
    min_size=1,
    max_size=4,
)
common = {
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0.01, 1),
    "seed": st.integers(),
    "stop": texts.filter(bool) | st.lists(texts.filter(bool), max_size=4),
    "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    "n": st.sampled_from([1, 1, 1, 1, 2]),
    "ignore_eos": st.booleans(),
    "return_token_ids": st.booleans(),
    "priority": st.sampled_from(["high", "normal", "low"]),
    "user": texts,
}


def bodies(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Requests that are well-formed for the most part; in some, one field is anything at all, or left out."""
    few = st.integers(1, MOST_TOKENS)
    whole = st.fixed_dictionaries(
        {"model": st.just("tiny"), "max_tokens": few, "stream": st.booleans(), **required}, optional=optional
    )
    spoiled = st.tuples(whole, st.sampled_from([*required, *optional, "model", "max_tokens"]), anything).map(
        lambda parts: {**parts[0], parts[1]: parts[2]}
    )
    return whole | whole | whole | spoiled


contents = st.one_of(
    st.tuples(st.just(COMPLETIONS), bodies({"prompt": prompts}, {**common, "logprobs": st.sampled_from([0, 0, 0, 3])})),
    st.tuples(st.just(CHATS), bodies({"messages": messages}, {**common, "logprobs": st.booleans()})),
    st.tuples(st.just(COMPLETIONS), bodies({"prompt": prompts}, {})),
    st.tuples(st.just(CHATS), bodies({"messages": messages}, {})),
    st.tuples(st.sampled_from([COMPLETIONS, CHATS, "/v1/other"]), anything),
).map(lambda pair: (pair[0], json.dumps(pair[1]).encode()))
garbage = st.tuples(st.sampled_from([COMPLETIONS, CHATS]), st.binary(max_size=200))


@dataclass(frozen=True)
class Asked:
    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    leaves_after: float | None = None
    """Seconds after which the client is gone."""


requests = st.builds(
    lambda content, headers, leaves: Asked(*content, headers, leaves),
    contents | contents | contents | garbage,
    st.fixed_dictionaries(
        {},
        optional={
            "x-holdfast-priority": st.sampled_from(["high", "high", "low", "low", "vip"]),
            "x-holdfast-timeout": st.sampled_from(["5", "5", "5", "0.01", "x"]),
            "x-holdfast-probe": st.just("1"),
            "x-request-id": st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=300).map(
                str.strip
            ),
        },
    ),
    st.sampled_from([None] * 7 + [0.0, 0.005, 0.05]),
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    model = write_tiny_model(Path(tmp_path_factory.mktemp("model")) / "tiny.gguf").path
    process = EngineProcess(model, "--max-num-seqs", "8", "--max-queue", "8", "--max-output-tokens", str(MOST_TOKENS))
    try:
        yield process.wait_ready()
    finally:
        process.stop()


def check_error(error: Any) -> None:
    assert set(error) == {"error"}
    assert set(error["error"]) == {"message", "type", "param", "code"}
    assert isinstance(error["error"]["message"], str)
    assert error["error"]["message"]
    assert isinstance(error["error"]["type"], str)


def check_stream(path: str, text: str) -> str:
    """What became of the stream; each of its events is one of OpenAI's."""
    *parts, end = text.split("\n\n")
    assert end == ""
    assert all(part.startswith("data: ") for part in parts)
    if parts[-1] != "data: [DONE]":
        check_error(json.loads(parts[-1][6:]))
        return "broken stream"
    for part in parts[:-1]:
        chunk = json.loads(part[6:])
        if path == COMPLETIONS:  # the client's type knows no null there, though OpenAI sends it, too
            for choice in chunk["choices"]:
                choice["finish_reason"] = choice["finish_reason"] or "stop"
        (ChatCompletionChunk if path == CHATS else Completion).model_validate(chunk)
    return "stream"


def check(asked: Asked, answer: httpx.Response) -> str:
    """What became of the request; raises AssertionError when its answer is none of OpenAI's."""
    if answer.status_code != 200:
        assert answer.status_code in REFUSALS, (asked, answer.status_code, answer.text)
        check_error(answer.json())
        return str(answer.status_code)
    if answer.headers["content-type"].startswith("text/event-stream"):
        return check_stream(asked.path, answer.text)
    whole = (ChatCompletion if asked.path == CHATS else Completion).model_validate(answer.json())
    assert whole.usage is not None
    assert whole.usage.completion_tokens <= MOST_TOKENS
    assert whole.choices[0].finish_reason in ("stop", "length")
    return "whole"


async def send(client: httpx.AsyncClient, asked: Asked) -> str:
    sending = client.post(asked.path, content=asked.body, headers=asked.headers)
    if asked.leaves_after is None:
        return check(asked, await sending)
    try:
        return check(asked, await asyncio.wait_for(sending, asked.leaves_after))
    except TimeoutError:
        return "left"


def resources(engine: EngineProcess) -> dict[str, float]:
    return {name: engine.metric(name) for name in ("holdfast:event_loop_tasks", "holdfast:open_files")}


def test_generated_requests_leave_the_engine_as_it_was(engine: EngineProcess) -> None:
    outcomes: Counter[str] = Counter()
    text = engine.ask(max_tokens=20).json()["choices"][0]["text"]
    before = resources(engine)

    async def send_all(crowd: list[Asked]) -> None:
        async with httpx.AsyncClient(base_url=engine.url, timeout=DEADLINE) as client:
            outcomes.update(await asyncio.gather(*(send(client, asked) for asked in crowd)))

    @seed(SEED)
    @settings(
        max_examples=max(1, REQUESTS // CROWD),
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(requests, min_size=CROWD, max_size=CROWD))
    def run(crowd: list[Asked]) -> None:
        asyncio.run(send_all(crowd))

    run()
    print(f"{outcomes.total()} requests: {dict(outcomes.most_common())}")
    engine.wait_load(running=0)
    wait_until(lambda: engine.client.get("/progress").json()["requests_in_flight"] == 0, "an idle engine")
    wait_until(lambda: resources(engine) == before, f"as few tasks and files as before: {before}")
    assert engine.ask(max_tokens=20).json()["choices"][0]["text"] == text
    assert engine.process.poll() is None
    assert {"whole", "stream", "400", "404", "429", "left"} <= set(outcomes)
