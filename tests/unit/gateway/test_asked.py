"""Which requests can be continued, and what the next engine is asked."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from holdfast_gateway.relay import asked, stops
from holdfast_gateway.relay.asked import CHAT, COMPLETIONS
from holdfast_gateway.relay.regions import next_region

TEXT = {"messages": [{"role": "user", "content": "x"}]}


def read(path: str = COMPLETIONS, **fields: Any) -> asked.Asked:
    given_fields = {"model": "m", "stream": True, **({"prompt": "x"} if path == COMPLETIONS else TEXT), **fields}
    return asked.read(path, json.dumps(given_fields).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2}, {"best_of": 2}, {"logprobs": 0}, {"echo": True}, {"suffix": "x"}, {"tools": [{}]},
        {"response_format": {"type": "json_object"}}, {"guided_json": {}}, {"guided_choice": []},
        {"structured_outputs": {"regex": "a"}}, {"frequency_penalty": 0.1}, {"presence_penalty": -1},
        {"prompt": ["a", "b"]}, {"prompt": [[1], [2]]}, {"prompt": None}, {"max_tokens": None},
        {"min_tokens": 3, "stop": "x"}, {"include_stop_str_in_output": True}, {"truncate_prompt_tokens": 5},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_continued_truthfully_is_sent_on_as_it_came(fields: dict[str, Any]) -> None:
    request = read(**fields)
    assert request.obstacle
    assert request.first_body() is request.body


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1}, {"logprobs": None}, {"echo": False}, {"tools": []}, {"response_format": {"type": "text"}},
        {"frequency_penalty": 0}, {"prompt": [1, 2]}, {"temperature": 1.5, "seed": 7}, {"repetition_penalty": 1.1},
        {"stop": ["a", "b"]}, {"min_tokens": 3}, {"unknown": 1},
    ],
    ids=str,
)  # fmt: skip
def test_what_changes_nothing_is_no_obstacle(fields: dict[str, Any]) -> None:
    request = read(**fields)
    assert request.obstacle is None
    assert json.loads(request.first_body()).items() >= {**fields, "return_token_ids": True}.items()


@pytest.mark.parametrize("content", [[{"type": "image_url"}], [7], {"a": 1}])
def test_a_chat_that_holds_more_than_text_cannot_be_continued(content: Any) -> None:
    assert read(CHAT, messages=[{"role": "user", "content": content}]).obstacle
    assert read(CHAT, messages=[{"role": "user", "content": [{"type": "text", "text": "x"}]}]).obstacle is None


@pytest.mark.parametrize(
    ("path", "fields", "limit"),
    [
        (COMPLETIONS, {}, 16), (COMPLETIONS, {"max_tokens": 3}, 3), (CHAT, {}, None), (CHAT, {"max_tokens": 4}, 4),
        (CHAT, {"max_completion_tokens": 5, "max_tokens": 9}, 5), (CHAT, {"max_tokens": None}, None),
    ],
)  # fmt: skip
def test_the_limit_is_what_engines_take_it_for(path: str, fields: dict[str, Any], limit: int | None) -> None:
    assert read(path, **fields).limit == limit


def test_a_chat_is_continued_as_a_completion_with_all_that_shapes_it() -> None:
    request = read(
        CHAT, max_completion_tokens=20, temperature=0.5, seed=3, ignore_eos=True, min_tokens=6, top_p=0.5, user="u"
    )
    body = json.loads(request.continuation_body([1, 2, 3], generated=2, room=18))
    assert body == {
        "model": "m", "stream": True, "temperature": 0.5, "seed": 3, "ignore_eos": True, "min_tokens": 4, "top_p": 0.5,
        "user": "u", "return_token_ids": True, "prompt": [1, 2, 3], "max_tokens": 18,
    }  # fmt: skip


@given(st.binary(max_size=200))
def test_no_body_upsets_it(body: bytes) -> None:
    assert asked.read(COMPLETIONS, body).obstacle


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists), st.sampled_from([COMPLETIONS, CHAT])
)
def test_no_value_upsets_it(value: Any, path: str) -> None:
    for name in ("prompt", "messages", "stop", "max_tokens", "stream_options", "n", "response_format", "tools"):
        read(path, **{name: value})


def test_stops_are_found_as_engines_find_them() -> None:
    assert stops.find("abcabd", ["abd", "bc"]) == (1, "bc")
    assert stops.find("xab", ["b", "ab"]) == (1, "ab")
    assert stops.find("xab", ["y"]) is None
    assert stops.may_have_begun("xa", ["ab"])
    assert not stops.may_have_begun("xab", ["ab", "cab"][:1])
    assert not stops.may_have_begun("", ["ab"])


def test_regions_that_have_not_failed_go_first_then_the_one_that_failed_longest_ago() -> None:
    order = ("us", "eu", "ap")
    assert next_region(order, []) == "us"
    assert next_region(order, ["us"]) == "eu"
    assert next_region(order, ["us", "eu"]) == "ap"
    assert next_region(order, ["us", "eu", "ap"]) == "us"
    assert next_region(order, ["us", "eu", "ap", "us"]) == "eu"
    assert next_region(("us",), ["us", "us"]) == "us"
    assert next_region((), ["us"]) is None
