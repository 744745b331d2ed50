"""A stream whose engines are lost at any byte, any number of times, is to its client the undisturbed one."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from tests.unit.gateway.streams import (
    Cut,
    SimulatedEngine,
    differences,
    generate,
    prompt_ids,
    receive,
    through_relay,
)

from holdfast_gateway.relay import asked
from holdfast_gateway.relay.asked import CHAT, COMPLETIONS
from holdfast_gateway.relay.continuation import Continuation, GoOn, Stuck
from holdfast_gateway.relay.events import Event, EventReader
from holdfast_gateway.relay.failure import UpstreamFailure

CUTS = st.lists(st.builds(Cut, st.integers(0, 20_000), st.booleans()), max_size=6)
STOPS = st.one_of(
    st.none(),
    st.sampled_from(["ab", "aba", "b c", "é€", "\n", "aab"]),
    st.lists(st.sampled_from(["ab", "bab", "ba\n", "€ab", "😀", "a a"]), min_size=1, max_size=3),
)
ENGINES = st.sampled_from([("shim", 1), ("shim", 3), ("vllm", 1)])


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A request that can be continued."""
    path = draw(st.sampled_from([COMPLETIONS, CHAT]))
    fields: dict[str, Any] = {"model": "m", "stream": True, "temperature": 0, "ignore_eos": draw(st.booleans())}
    text = draw(st.text("abcdefgh", min_size=1, max_size=12))
    if path == CHAT:
        fields["messages"] = [{"role": "user", "content": char * number} for number, char in enumerate(text, 1)]
    else:
        fields["prompt"] = draw(st.sampled_from([text, [ord(char) % 16 for char in text]]))
    fields |= draw(st.fixed_dictionaries({}, optional={"max_tokens": st.integers(1, 40)}))
    if (stop := draw(STOPS)) is not None:
        fields["stop"] = stop
    if draw(st.booleans()):
        fields["stream_options"] = {"include_usage": True}
    if draw(st.booleans()):
        fields["return_token_ids"] = True
    return path, fields


def undisturbed(path: str, fields: dict[str, Any]) -> Any:
    """The answer of an engine that lives, without any relay: it holds text back itself, as a client expects."""
    return receive(b"".join(SimulatedEngine("shim").answer(path, json.dumps(fields).encode())))


@given(requests(), CUTS, ENGINES)
@settings(max_examples=600, deadline=None)
def test_the_client_cannot_tell_a_continued_stream_from_an_undisturbed_one(
    request: tuple[str, dict[str, Any]], cuts: list[Cut], kind: tuple[str, int]
) -> None:
    path, fields = request
    out, _ = through_relay(path, json.dumps(fields).encode(), SimulatedEngine(*kind), cuts)

    expected, got = undisturbed(path, fields), receive(out)

    if kind[1] > 1 and expected.reason == "stop":
        # An engine that gives several tokens at once may have generated some beyond the stop string.
        expected.usage = got.usage = None
        expected.ids = got.ids = []
    assert differences(got, expected) == []


@given(requests(), CUTS, ENGINES)
@settings(max_examples=300, deadline=None)
def test_at_any_moment_what_was_sent_is_the_text_of_the_ids_that_the_next_engine_is_given(
    request: tuple[str, dict[str, Any]], cuts: list[Cut], kind: tuple[str, int]
) -> None:
    path, fields = request
    engine = SimulatedEngine(*kind)
    through_relay(path, json.dumps(fields).encode(), engine, cuts)

    prompt = prompt_ids(path, fields)
    tokens = [token for token, _ in generate(prompt, 60, fields["ignore_eos"])]
    for sent in engine.requests:
        if isinstance(sent.get("prompt"), list) and sent["prompt"] != fields.get("prompt"):
            generated = sent["prompt"][len(prompt) :]
            assert sent["prompt"] == prompt + tokens[: len(generated)]
            if "max_tokens" in fields:
                assert sent["max_tokens"] == fields["max_tokens"] - len(generated)


def test_the_checker_sees_a_token_that_was_lost_or_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"model": "m", "stream": True, "prompt": "abcd", "max_tokens": 30, "ignore_eos": True}
    body = json.dumps(fields).encode()
    expected = undisturbed(COMPLETIONS, fields)
    cuts = [Cut(2_000)]
    assert differences(receive(through_relay(COMPLETIONS, body, SimulatedEngine("shim"), cuts)[0]), expected) == []
    right = Continuation.next_step

    def wrong(change: Any) -> Any:
        def step(answer: Continuation) -> Any:
            found = right(answer)
            return GoOn(change(found.token_ids), found.generated, found.room) if isinstance(found, GoOn) else found

        return step

    for change in (lambda ids: ids[:-1], lambda ids: [*ids, ids[-1]]):
        monkeypatch.setattr(Continuation, "next_step", wrong(change))
        got = receive(through_relay(COMPLETIONS, body, SimulatedEngine("shim"), cuts)[0])
        assert any(found.startswith("text") for found in differences(got, expected))


def lines(*contents: Any) -> list[Event]:
    """Events."""
    data = b"".join(
        b"data: " + (each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n\n" for each in contents
    )
    return list(EventReader().feed(data))


def started(fields: dict[str, Any], path: str = COMPLETIONS) -> Continuation:
    return Continuation(asked.read(path, json.dumps({"model": "m", "stream": True, "prompt": "x", **fields}).encode()))


def chunk(text: str, ids: list[int] | None = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    told = {} if ids is None else {"token_ids": ids}
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason, **told, **more}
    return {"id": "1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


def feed(answer: Continuation, *contents: Any) -> bytes:
    return b"".join(answer.take(each).out for each in lines(*contents))


def test_an_engine_that_tells_no_ids_is_passed_on_and_cannot_be_continued() -> None:
    answer = started({})
    got = receive(feed(answer, chunk("a"), chunk("b")))
    assert got.text == "ab"
    assert answer.next_step() == Stuck("the engine tells no token ids")


def test_an_engine_that_makes_something_else_of_its_text_cannot_be_continued() -> None:
    answer = started({"messages": [{"role": "user", "content": "x"}]}, CHAT)
    first = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "prompt_token_ids": [1]}
    thinks = {"index": 0, "delta": {"role": "assistant", "reasoning_content": "hm"}, "finish_reason": None}
    feed(answer, {**first, "choices": [{**thinks, "token_ids": [4]}]})
    assert answer.next_step() == Stuck("the engine makes reasoning_content of its text")


def test_an_answer_whose_last_token_came_is_finished_without_another_engine() -> None:
    answer = started({"max_tokens": 2, "stream_options": {"include_usage": True}})
    out = feed(answer, chunk("a", [1], prompt_token_ids=[7, 8]), chunk("b", [2]))
    step = answer.next_step()
    got = receive(out + getattr(step, "out", b""))
    assert (got.text, got.reason, got.done) == ("ab", "length", True)
    assert got.usage == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}


def test_an_answer_that_had_finished_is_completed_with_its_usage() -> None:
    answer = started({"stream_options": {"include_usage": True}})
    out = feed(answer, chunk("a", [1], "stop", prompt_token_ids=[7]))
    got = receive(out + getattr(answer.next_step(), "out", b""))
    assert (got.reason, got.done, got.usage and got.usage["completion_tokens"]) == ("stop", True, 1)


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_engine_that_gives_up_has_not_finished(reason: str) -> None:
    answer = started({})
    feed(answer, chunk("a", [1], prompt_token_ids=[7]))
    with pytest.raises(Exception, match="gave the request up"):
        feed(answer, chunk("", [], reason))
    assert isinstance(answer.next_step(), GoOn)


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b"7", b"null", b'{"choices": 7}', b'{"choices": [{"text": 7}]}', b"[DONE]",
             b'{"choices": [{"index": 0}]}', b'{"choices": [{"delta": null}]}', b'{"error": {"message": "x"}}'],
)  # fmt: skip
def test_what_no_engine_sends_is_an_engine_lost(data: bytes) -> None:
    answer = started({})
    feed(answer, chunk("a", [1], prompt_token_ids=[7]))
    with pytest.raises(Exception, match=r"event|reported|holds no text|finish reason"):
        feed(answer, data)
    assert isinstance(answer.next_step(), GoOn)


@given(st.lists(st.binary(max_size=50)))
def test_events_are_the_same_however_the_bytes_are_cut(pieces: list[bytes]) -> None:
    data = b"".join(b"data: %d\n\n" % number if number % 3 else b": c\r\n\r\n" for number in range(len(pieces)))
    whole = list(EventReader().feed(data))
    reader = EventReader()
    parted = [each for byte in data for each in reader.feed(bytes([byte]))]
    assert parted == whole
    assert b"".join(each.raw for each in whole) == data


def test_what_is_complete_is_told_before_what_is_broken() -> None:
    events = EventReader().feed(b"data: a\n\ndata: \xff\n\ndata: b\n\n")
    assert next(events).data == "a"
    with pytest.raises(UpstreamFailure):
        next(events)
