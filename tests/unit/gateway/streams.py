"""Simulated engines that stream, the client that reads, and a relay between them without any I/O.

The model is a hash of all token ids, so that greedy continuation from the right ids is exact and from any others is
not. Its vocabulary has characters of several bytes, whole and in parts, and letters of which stop strings are made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast_engine.answers import DONE, Answer, ChatAnswer, CompletionAnswer, event, usage
from holdfast_engine.reading import NewText
from holdfast_engine.text import TextAssembler
from holdfast_engine.vocabulary import Detokenizer, Vocabulary, byte_to_char
from holdfast_gateway.relay import asked
from holdfast_gateway.relay.continuation import Again, Close, Continuation, GoOn, Stuck
from holdfast_gateway.relay.events import EventReader, error_event
from holdfast_gateway.relay.failure import Reason, UpstreamFailure

TOKENS = [b"", b"a", b"b", b"ab", b" ", b"\n", "é".encode(), "€".encode(), "😀".encode(), b"c"]
TOKENS += ["é".encode()[:1], "é".encode()[1:], "€".encode()[:2], "€".encode()[2:], "😀".encode()[:1], "😀".encode()[1:]]
END = 0
CONTEXT = 60
VOCABULARY = Vocabulary(["".join(byte_to_char()[byte] for byte in token) for token in TOKENS], control=[END])


def next_token(ids: Sequence[int], ignore_eos: bool) -> int:
    """The model."""
    digest = hashlib.blake2b(bytes(ids), digest_size=8).digest()
    token = int.from_bytes(digest, "big") % len(TOKENS)
    return 1 if token == END and ignore_eos else token


def generate(prompt: Sequence[int], most: int, ignore_eos: bool) -> Iterator[tuple[int, str | None]]:
    """Token ids, the last with the finish reason."""
    ids = list(prompt)
    for number in range(1, most + 1):
        ids.append(next_token(ids, ignore_eos))
        reason = "stop" if ids[-1] == END else "length" if number == most else None
        yield ids[-1], reason
        if reason:
            return


def prompt_ids(path: str, fields: dict[str, Any]) -> list[int]:
    """What a prompt is to the model."""
    if path == asked.CHAT:
        return [len(message["content"]) % 16 for message in fields["messages"]] + [3]
    prompt = fields["prompt"]
    return prompt if isinstance(prompt, list) else [ord(char) % 16 for char in prompt]


@dataclass
class SimulatedEngine:
    """Answers a request with the bytes of its stream. `step`: tokens that come at once."""

    name: str
    step: int = 1
    requests: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, path: str, body: bytes) -> list[bytes]:
        """The events of a stream."""
        fields = json.loads(body)
        self.requests.append(fields)
        prompt = prompt_ids(path, fields)
        most = fields.get("max_tokens") or (CONTEXT - len(prompt) if path == asked.CHAT else 16)
        told = prompt if fields.get("return_token_ids") else None
        kind = ChatAnswer if path == asked.CHAT else CompletionAnswer
        frame = kind(f"{self.name}-{len(self.requests)}", "m", 1000 + len(self.requests), told)
        tokens = list(generate(prompt, most, bool(fields.get("ignore_eos"))))
        stops = asked.stops(fields.get("stop"))
        shapes = self.vllm if self.name == "vllm" else self.shim
        events, count = shapes(frame, tokens, stops, bool(fields.get("include_stop_str_in_output")))
        if (fields.get("stream_options") or {}).get("include_usage"):
            events.append(event(frame.usage_chunk(usage(len(prompt), count))))
        return [*events, DONE]

    def shim(self, frame: Answer, tokens: Any, stops: Sequence[str], _: bool) -> tuple[list[bytes], int]:
        """As Holdfast's own engines: each piece is the text of its ids, and no stop string has begun at its end."""
        assembler = TextAssembler(VOCABULARY, stops, whole_pieces=frame.prompt_ids is not None)
        events = []
        for start in range(0, len(tokens), self.step):
            batch = tokens[start : start + self.step]
            piece = assembler.add(token for token, _ in batch)
            text, ids, reason = piece.text, piece.token_ids, "stop" if piece.stopped else batch[-1][1]
            if reason and not piece.stopped:
                rest = assembler.finish()
                text, ids, reason = text + rest.text, ids + rest.token_ids, "stop" if rest.stopped else reason
            if not events or text or ids or reason:
                events.append(event(frame.chunk(NewText(text, ids, reason), first=not events)))
            if reason:
                break
        return events, assembler.token_count

    def vllm(self, frame: Answer, tokens: Any, stops: Sequence[str], include: bool) -> tuple[list[bytes], int]:
        """As vLLM: a chat begins with a chunk of its own for the role, ids come before the text that they complete, and
        text is not held back where a stop string may have begun. Told to, it leaves the stop string in."""
        assert include or not stops
        detokenizer = Detokenizer(VOCABULARY)
        chat = isinstance(frame, ChatAnswer)
        events = [event(frame.chunk(NewText("", [], None), first=True))] if chat else []
        text, held, taken = "", "", 0
        for token, reason in tokens:
            taken += 1
            held += detokenizer.add(token) + (detokenizer.finish() if reason else "")
            new, held = ("", held) if detokenizer.holds_back else (held, "")
            text += new
            if any(stop in text for stop in stops):
                reason = "stop"
            events.append(event(frame.chunk(NewText(new, [token], reason), first=not events)))
            if reason:
                break
        return events, taken


@dataclass
class Received:
    """What a client makes of a stream."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    reason: str | None = None
    usage: dict[str, int] | None = None
    done: bool = False
    roles: int = 0
    frames: set[tuple[str, int, str, str]] = field(default_factory=set)
    prompts: int = 0
    error: dict[str, Any] | None = None


def receive(data: bytes) -> Received:
    """Reads a stream as strictly as no client does: nothing may follow the end, and two reasons are one too many."""
    got = Received()
    for each in EventReader().feed(data):
        if each.data is None:
            continue
        assert not got.done, "nothing follows [DONE]"
        if each.data == "[DONE]":
            got.done = True
            continue
        chunk = json.loads(each.data)
        if "error" in chunk:
            got.error = chunk["error"]
            continue
        got.frames.add((chunk["id"], chunk["created"], chunk["model"], chunk["object"]))
        got.prompts += "prompt_token_ids" in chunk
        if chunk.get("usage"):
            assert got.usage is None, "the usage is told once"
            got.usage = chunk["usage"]
        for choice in chunk["choices"]:
            got.prompts += "prompt_token_ids" in choice
            got.ids += choice.get("token_ids", [])
            delta = choice.get("delta", {})
            got.roles += "role" in delta
            got.text += choice.get("text") or delta.get("content") or ""
            if choice["finish_reason"]:
                assert got.reason is None, "an answer finishes once"
                got.reason = choice["finish_reason"]
    return got


def differences(got: Received, undisturbed: Received) -> list[str]:
    """What a client could tell apart; the frame's values may be others, but there must be one."""
    names = ("text", "ids", "reason", "usage", "done", "roles", "prompts", "error")
    found = [
        f"{name}: {getattr(got, name)!r} instead of {getattr(undisturbed, name)!r}"
        for name in names
        if getattr(got, name) != getattr(undisturbed, name)
    ]
    if len(got.frames) != 1:
        found.append(f"frames: {got.frames}")
    return found


@dataclass(frozen=True)
class Cut:
    """How an engine is lost: after this many bytes of its stream; then it may tell of an error."""

    bytes: int
    error: bool = False


def through_relay(
    path: str, body: bytes, engine: SimulatedEngine, cuts: Sequence[Cut], most: int = 100
) -> tuple[bytes, Continuation]:
    """What the client gets when engines are lost in these ways, one after the other."""
    request = asked.read(path, body)
    answer = Continuation(request)
    out = b""
    target, sent = path, request.first_body()
    losses = iter(cuts)
    for _ in range(most):
        stream = b"".join(engine.answer(target, sent))
        if (cut := next(losses, None)) is not None:
            stream = stream[: cut.bytes % (len(stream) + 1)]
            stream = whole_events(stream) + error_event("no", "stalled") if cut.error else stream
        try:
            for each in EventReader().feed(stream):
                taken = answer.take(each)
                out += taken.out
                if taken.complete:
                    return out, answer
            raise UpstreamFailure(Reason.ENDED, "no more")
        except UpstreamFailure:
            step = answer.next_step()
        match step:
            case Again():
                continue
            case Close():
                return out + step.out, answer
            case Stuck():
                return out + error_event(step.why, "stream_not_resumable"), answer
            case GoOn():
                room = CONTEXT - len(step.token_ids) if step.room is None else step.room
                if room <= 0:
                    return out + answer.ending("length"), answer
                answer.continued()
                target, sent = asked.COMPLETIONS, request.continuation_body(step.token_ids, step.generated, room)
    raise AssertionError("the relay never ends")


def whole_events(data: bytes) -> bytes:
    """Without the part of an event at the end."""
    return data[: data.rfind(b"\n\n") + 2] if b"\n\n" in data else b""
