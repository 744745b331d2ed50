"""What requests are accepted, and how the others are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast_engine.errors import InvalidRequestError
from holdfast_engine.protocol import ChatRequest, CompletionRequest, given_priority, given_timeout, parse

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "m", "prompt": "hi"}


def completion(**fields: Any) -> CompletionRequest:
    return parse(CompletionRequest, json.dumps({**COMPLETION, **fields}).encode())


def chat(**fields: Any) -> ChatRequest:
    return parse(ChatRequest, json.dumps({**CHAT, **fields}).encode())


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"nul", b"[" * 100_000])
def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        parse(CompletionRequest, body)
    assert refused.value.code == "invalid_json"


@pytest.mark.parametrize("body", [b"[]", b"3", b'"text"', b"null"])
def test_a_body_that_is_not_an_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        parse(CompletionRequest, body)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 3),
        ("prompt", ""),
        ("prompt", []),
        ("prompt", {"text": "hi"}),
        ("prompt", ["hi"]),
        ("prompt", [1.5]),
        ("prompt", "\ud800"),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", "5"),
        ("max_tokens", True),
        ("temperature", -0.1),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.1),
        ("seed", "x"),
        ("stop", 3),
        ("stop", ""),
        ("stop", ["x"] * 17),
        ("n", 2),
        ("stream", "yes"),
        ("stream_options", []),
        ("best_of", 2),
        ("echo", True),
        ("logprobs", 21),
        ("logprobs", -1),
        ("logprobs", True),
        ("priority", "urgent"),
        ("priority", 1),
        ("suffix", "end"),
        ("presence_penalty", 0.5),
        ("return_token_ids", 1),
    ],
)
def test_a_field_with_an_unusable_value_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        completion(**{field: value})
    assert refused.value.status == 400
    assert refused.value.param == field
    error = refused.value.body()["error"]
    assert isinstance(error, dict)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "hi",
        [{"role": "user"}],
        [{"role": "user", "content": ""}],
        [{"content": "hi"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
    ],
)
def test_messages_without_usable_text_are_refused(messages: Any) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        chat(messages=messages)
    assert refused.value.param == "messages"


def test_unknown_and_harmless_fields_are_ignored() -> None:
    completion(user="me", best_of=1, echo=False, logprobs=None, something_new=[1], n=1)


def test_log_probabilities_are_asked_for_in_two_ways() -> None:
    assert completion().told_logprobs is None
    assert completion(logprobs=0).sampling(1).logprobs == 0
    assert completion(logprobs=3).sampling(1).logprobs == 3
    assert chat(logprobs=False).told_logprobs is None
    assert chat(logprobs=True).sampling(1).logprobs == 0
    assert chat(logprobs=True, top_logprobs=4).sampling(1).logprobs == 4
    with pytest.raises(InvalidRequestError, match="needs logprobs"):
        chat(top_logprobs=4)


@pytest.mark.parametrize("name", ["high", "Normal", " LOW "])
def test_a_header_names_the_class(name: str) -> None:
    assert given_priority(name) == name.strip().lower()
    assert given_priority(None) is None
    with pytest.raises(InvalidRequestError, match="must be one of high, normal, low"):
        given_priority("urgent")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon", "1e9", ""])
def test_a_time_out_that_is_no_time_is_refused(seconds: str) -> None:
    assert given_timeout("2.5") == 2.5
    assert given_timeout(None) is None
    with pytest.raises(InvalidRequestError, match="number of seconds"):
        given_timeout(seconds)


def test_text_parts_of_a_message_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert chat(messages=[{"role": "user", "content": parts}]).plain_messages == [{"role": "user", "content": "ab"}]


def test_defaults_are_those_of_the_openai_api() -> None:
    sampling = completion().sampling(random_seed=5)
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed) == (16, 1.0, 1.0, 5)
    assert chat().sampling(random_seed=5).max_tokens is None


def test_a_seed_of_the_request_is_kept() -> None:
    assert completion(seed=-3).sampling(5) == completion(seed=-3).sampling(6)
    assert completion(seed=7).sampling(5).seed == 7


def test_max_completion_tokens_goes_before_max_tokens() -> None:
    assert chat(max_tokens=3, max_completion_tokens=4).token_limit == 4


def test_one_stop_string_is_a_list_of_one() -> None:
    assert completion(stop="x").stops == ["x"]
    assert completion(stop=["x", "y"]).stops == ["x", "y"]
    assert completion().stops == []
