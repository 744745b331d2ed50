"""Messages survive the way between the two processes, however the bytes are cut."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_engine import wire

MESSAGES: list[wire.Message] = [
    wire.Add(1, {"max_tokens": None, "temperature": 0.5}, messages=[{"role": "user", "content": "é\u2028\ud800"}]),
    wire.Cancel(7),
    wire.Rest(True),
    wire.Resting(True),
    wire.Loaded(["a", "Ġ"], [0], "gpt2", 4096),
    wire.Ready(),
    wire.Accepted(1, [1, 2]),
    wire.Rejected(1, 400, "invalid_prompt", "no"),
    wire.Failed("gone"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_the_same_after_the_wire(message: wire.Message) -> None:
    assert wire.decode(wire.encode(message)[4:]) == message


def test_outputs_arrive_as_triples() -> None:
    sent = wire.Progress([(1, [5, 6], None), (2, [], "stop")], [(1, [-0.5, -1.0])], 0.5)
    received = wire.decode(wire.encode(sent)[4:])
    assert isinstance(received, wire.Progress)
    assert [(id, ids, reason) for id, ids, reason in received.outputs] == sent.outputs
    assert dict(received.logprobs) == {1: [-0.5, -1.0]}


@given(st.lists(st.integers(1, 40), max_size=20))
def test_messages_cut_anywhere_arrive_whole_and_in_order(cuts: list[int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = wire.Channel(theirs)
        stream = b"".join(wire.encode(message) for message in MESSAGES)
        received: list[wire.Message] = []
        for length in [*cuts, len(stream)]:
            piece, stream = stream[:length], stream[length:]
            if piece:
                ours.sendall(piece)
                received += channel.receive(timeout=0)
        assert received == MESSAGES


def test_a_closed_connection_ends_the_channel() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        with pytest.raises(EOFError):
            wire.Channel(theirs).receive(timeout=None)


async def test_the_reader_returns_none_when_the_other_side_is_gone() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(wire.encode(wire.Ready()) + b"\x00\x00")
    reader.feed_eof()
    assert await wire.read_message(reader) == wire.Ready()
    assert await wire.read_message(reader) is None
