"""Judging answers: only a complete and right one passes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_chaos.answer import StreamReader, request_error
from holdfast_chaos.records import StreamOutcome

DONE = b"data: [DONE]\n\n"


def completion(text: str = "ad", reason: str | None = "length", tokens: int = 5) -> bytes:
    choice = {"index": 0, "text": text, "finish_reason": reason}
    return json.dumps({"choices": [choice], "usage": {"completion_tokens": tokens}}).encode()


def event(content: Any) -> bytes:
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


def part(reason: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "text": "ad", "finish_reason": reason}]})


def usage(tokens: int) -> bytes:
    return event({"choices": [], "usage": {"completion_tokens": tokens}})


def whole(tokens: int = 5) -> bytes:
    return part() * (tokens - 1) + part("length") + usage(tokens) + DONE


def read(data: bytes, cut: str = "", exact: bool = True) -> tuple[StreamOutcome, str]:
    reader = StreamReader(tokens=5, exact=exact)
    reader.feed(data)
    return reader.outcome(cut)


def test_a_right_answer_has_no_error() -> None:
    assert request_error(200, completion(), 5, exact=True) == ""


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (503, b"no healthy upstream", "status 503: no healthy upstream"),
        (500, b"", "status 500: (no body)"),
        (200, b"", "no completion"),
        (200, completion()[:-4], "no completion"),
        (200, b"[]", "no completion"),
        (200, b'{"choices": []}', "no completion"),
        (200, completion(text=""), "an empty completion"),
        (200, completion(tokens=4), "4 tokens instead of 5"),
        (200, completion(reason="stop"), "finish reason stop"),
        (200, completion(reason="abort"), "finish reason abort"),
        (200, completion(reason=None), "finish reason None"),
    ],
)
def test_a_wrong_answer_is_named(status: int, body: bytes, words: str) -> None:
    assert words in request_error(status, body, 5, exact=True)


def test_where_the_end_of_text_counts_an_early_stop_is_right() -> None:
    assert request_error(200, completion(reason="stop", tokens=2), 5, exact=False) == ""


@given(st.lists(st.integers(0, len(whole())), max_size=8))
def test_a_stream_is_complete_however_its_bytes_are_cut(places: list[int]) -> None:
    data = whole()
    reader = StreamReader(tokens=5, exact=True)
    for begin, end in zip([0, *sorted(places)], [*sorted(places), len(data)], strict=True):
        reader.feed(data[begin:end])

    assert reader.outcome("") == (StreamOutcome.COMPLETED, "")
    assert reader.events == 5


@given(st.integers(0, len(whole()) - 3))
def test_a_stream_that_ends_early_is_never_complete(end: int) -> None:
    outcome, error = read(whole()[:end])

    assert outcome is not StreamOutcome.COMPLETED
    assert error


def test_a_stream_without_any_token_never_began() -> None:
    assert read(b"")[0] is StreamOutcome.FAILED
    assert read(b"", "status 503: no healthy upstream") == (StreamOutcome.FAILED, "status 503: no healthy upstream")


def test_a_stream_whose_connection_broke_is_truncated_for_that_reason() -> None:
    assert read(part() * 3, "ClientPayloadError") == (StreamOutcome.TRUNCATED, "ClientPayloadError")


def test_the_end_marker_without_a_finish_reason_is_not_enough() -> None:
    assert read(part() * 5 + DONE)[0] is StreamOutcome.TRUNCATED


def test_a_finish_reason_without_the_end_marker_is_not_enough() -> None:
    assert read(part() * 4 + part("length"))[0] is StreamOutcome.TRUNCATED


def test_a_complete_stream_with_too_few_tokens_is_not_complete() -> None:
    outcome, error = read(part() * 2 + part("length") + usage(3) + DONE)

    assert outcome is StreamOutcome.TRUNCATED
    assert "3 tokens instead of 5" in error


def test_an_error_event_is_the_reason() -> None:
    outcome, error = read(part() + event({"error": {"message": "engine stalled"}}))

    assert outcome is StreamOutcome.TRUNCATED
    assert "engine stalled" in error


def test_windows_line_ends_and_spaces_in_json_are_understood() -> None:
    spaced = b'data: {"choices": [{"text": "a", "finish_reason": null}]}\r\n\r\n'
    end = b'data: {"choices": [{"text": "a", "finish_reason": "stop"}]}\r\n\r\ndata: [DONE]'

    assert read(spaced + end, exact=False) == (StreamOutcome.COMPLETED, "")


def test_text_that_looks_like_a_running_event_is_not_taken_for_one() -> None:
    last = event({"choices": [{"text": '"finish_reason":null', "finish_reason": "stop"}]})

    assert read(part() + last + DONE, exact=False) == (StreamOutcome.COMPLETED, "")
