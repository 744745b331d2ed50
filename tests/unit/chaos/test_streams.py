"""The check on streams: that it sees every lost and every doubled token, and what becomes of the numbers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_chaos.streams.client import Ended, Question
from holdfast_chaos.streams.compare import Received, compare, count
from holdfast_chaos.streams.experiment import Fault, Outcome
from holdfast_chaos.streams.reader import EventReader
from holdfast_chaos.streams.report import lines, passed, report

answers = st.lists(st.integers(0, 500), min_size=2, max_size=80)


def stream(token_ids: list[int], **fields: object) -> Received:
    text = "".join(f"{id}," for id in token_ids)
    whole = {"text": text, "reason": "length", "completion_tokens": len(token_ids), "done": True, "ids": {"a"}}
    return Received(token_ids=token_ids, **{**whole, **fields})  # type: ignore[arg-type]


@given(answers)
def test_the_same_answer_is_exact(ids: list[int]) -> None:
    assert compare(stream(list(ids)), stream(ids)).exact


@given(answers, st.data())
def test_a_planted_lost_token_is_seen(ids: list[int], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(ids) - 1))
    difference = compare(stream(ids[:at] + ids[at + 1 :]), stream(ids))
    assert (difference.lost, difference.doubled, difference.exact) == (1, 0, False)


@given(answers, st.data())
def test_a_planted_doubled_token_is_seen(ids: list[int], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(ids) - 1))
    difference = compare(stream(ids[: at + 1] + ids[at:]), stream(ids))
    assert (difference.lost, difference.doubled, difference.exact) == (0, 1, False)


@given(answers, answers)
def test_counts_explain_the_difference_in_length(got: list[int], wanted: list[int]) -> None:
    lost, doubled = count(got, wanted)
    assert len(got) == len(wanted) - lost + doubled
    assert (lost, doubled) == (0, 0) or got != wanted


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"done": False}, "without"),
        ({"reason": "stop"}, "finish reason"),
        ({"completion_tokens": 2}, "usage"),
        ({"ids": {"a", "b"}}, "2 different ids"),
        ({"text": "1,2,"}, "another text"),
        ({"error": "reset"}, "reset"),
    ],
)
def test_what_else_may_be_wrong_is_told(fields: dict[str, object], wrong: str) -> None:
    assert wrong in compare(stream([1, 2, 3], **fields), stream([1, 2, 3])).wrong


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps({"id": "a", "choices": [], **fields}).encode() + b"\n\n"


def choice(text: str, ids: list[int], reason: str | None = None) -> dict[str, object]:
    return {"text": text, "token_ids": ids, "finish_reason": reason}


@given(st.lists(st.integers(1, 60), max_size=30))
def test_a_stream_cut_anywhere_is_read_the_same(cuts: list[int]) -> None:
    sent = b"".join(
        [
            event(choices=[choice("a", [1])]),
            b": resumed from us-east in eu-west\n\n",
            b": keep-alive\n\n",
            event(choices=[choice("bé", [2, 3], "length")]),
            event(usage={"completion_tokens": 3}),
            b"data: [DONE]\n\n",
        ]
    )
    reader = EventReader()
    for now, length in enumerate([*cuts, len(sent)]):
        reader.feed(sent[:length], now)
        sent = sent[length:]
    got = reader.received
    assert (got.text, got.token_ids, got.reason, got.completion_tokens) == ("abé", [1, 2, 3], "length", 3)
    assert (got.done, got.ids, got.regions, got.error) == (True, {"a"}, ["eu-west"], "")


def test_an_error_event_is_told() -> None:
    reader = EventReader()
    reader.feed(b'data: {"error": {"code": "resumes_exhausted", "message": "no"}}\n\n', 0.0)
    assert reader.received.error == "error event: resumes_exhausted: no"


def test_the_report_counts_and_times() -> None:
    question, whole = Question("a", 3), stream([1, 2, 3])
    resumed = stream([1, 2, 3], token_times=[10.0, 10.1, 11.1], resumed_after=[2])
    lost = stream([1, 3], done=False)
    outcome = Outcome({question: whole}, [], [Fault("kill", "us-east", 10.2, 20.0)])
    outcome.ended = [Ended(question, each, 0.0, 1.0) for each in (whole, resumed, lost)]
    content = report(outcome)
    assert (content["streams"], content["exact"], content["lost_tokens"], content["not_completed"]) == (3, 2, 1, 1)
    assert content["pause_ms"]["kill"] == {"count": 1, "p50": 1000.0, "p99": 1000.0, "longest": 1000.0}
    assert not passed(content)
    outcome.ended.pop()
    assert passed(report(outcome))
    assert "0 lost, 0 doubled" in "\n".join(lines(report(outcome)))


def test_a_pause_is_the_gap_before_the_first_token_elsewhere_even_when_it_comes_with_the_news() -> None:
    reader = EventReader()
    reader.feed(event(choices=[choice("a", [1])]), 1.0)
    reader.feed(b": resumed from us-east in eu-west\n\n" + event(choices=[choice("b", [2])]), 2.5)
    reader.feed(event(choices=[choice("c", [3])]), 2.6)
    assert reader.received.pauses() == [(1.0, 1.5)]


def test_streams_that_nothing_happened_to_prove_nothing() -> None:
    question, whole = Question("a", 3), stream([1, 2, 3])
    assert not passed(report(Outcome({question: whole}, [Ended(question, whole, 0.0, 1.0)], [])))
