"""OpenAI's own Python client against a real engine, as it is and without a hint that this is not OpenAI."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest

pytestmark = pytest.mark.integration
MESSAGES: Any = [{"role": "user", "content": "Tell me something."}]


@pytest.fixture
def client(engine: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_a_completion_streams_what_it_answers(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "prompt": "Once upon", "max_tokens": 20, "temperature": 0}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_a_chat_streams_what_it_answers(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 20, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(deltas) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_the_streaming_helper_understands_the_events(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 20, "temperature": 0}
    text = client.chat.completions.create(**asked).choices[0].message.content
    assert text is not None
    with client.chat.completions.stream(**asked, stop=text[-4:]) as stream:  # it takes an end by length for an error
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "".join(pieces) == text[: text.index(text[-4:])]


def test_log_probabilities_of_a_completion(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "prompt": "Once upon", "max_tokens": 12, "temperature": 0, "logprobs": 0}
    choice = client.completions.create(**asked).choices[0]
    told = choice.logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.token_logprobs is not None
    assert told.text_offset is not None
    assert len(told.tokens) == len(told.token_logprobs) == 12
    assert all(-20 < value < 0 for value in told.token_logprobs)
    ends = [at + len(token) for at, token in zip(told.text_offset, told.tokens, strict=True)]
    assert told.text_offset == [0, *ends[:-1]]
    streamed = client.completions.create(**asked, stream=True)
    values = [value for chunk in streamed for value in chunk.choices[0].logprobs.token_logprobs]  # type: ignore[union-attr]
    assert values == pytest.approx(told.token_logprobs, abs=1e-4)


def test_log_probabilities_of_a_chat(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 12, "temperature": 0, "logprobs": True}
    choice = client.chat.completions.create(**asked).choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert len(choice.logprobs.content) == 12
    text = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content)
    assert text.decode(errors="replace") == choice.message.content
    assert all(0 < math.exp(token.logprob) < 1 for token in choice.logprobs.content)


def test_a_greedy_token_is_the_likeliest_and_a_sampled_one_may_not_be(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "prompt": "Once upon", "max_tokens": 1, "logprobs": 0}
    [greedy] = client.completions.create(**asked, temperature=0).choices[0].logprobs.token_logprobs  # type: ignore[union-attr, misc]
    for seed in range(5):
        choice = client.completions.create(**asked, temperature=1.0, seed=seed).choices[0]
        assert choice.logprobs.token_logprobs[0] <= greedy + 1e-4  # type: ignore[union-attr, index]


def test_errors_become_the_clients_own_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.completions.create(model="other", prompt="Hi")
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.completions.create(model="tiny", prompt="Hi", max_tokens=0)
    with pytest.raises(openai.BadRequestError, match="the generated tokens' log probabilities alone"):
        client.completions.create(model="tiny", prompt="Hi", logprobs=1)
