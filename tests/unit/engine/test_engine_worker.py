"""The generation loop with a model that only counts: queueing, cancelling, pacing and refusals."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from holdfast.api import names
from holdfast_engine import app, wire
from holdfast_engine.port import Sampling
from holdfast_engine.worker import GenerationLoop, warm_up


@dataclass(frozen=True)
class Produced:
    tokens: list[int]
    finish_reason: str | None


@dataclass
class CountingModel:
    """Answers each request with 0, 1, 2, … up to its limit."""

    left: dict[int, int] = field(default_factory=dict)
    most_at_once: int = 0
    steps: int = 0
    info: wire.Loaded = field(default_factory=lambda: wire.Loaded(["a"] * 50, [], "gpt2", max_model_len=20))

    def encode_text(self, text: str) -> list[int]:
        if text == "unencodable":
            raise ValueError("no such character")
        return [ord(char) % 50 for char in text.strip()]

    def encode_messages(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        return self.encode_text("".join(message["content"] for message in messages))

    def add(self, request: int, prompt_ids: Sequence[int], max_tokens: int, _: Sampling) -> None:
        assert prompt_ids
        self.left[request] = max_tokens

    def cancel(self, request: int) -> None:
        del self.left[request]

    def has_work(self) -> bool:
        return bool(self.left)

    def step(self) -> dict[int, Produced]:
        self.steps += 1
        self.most_at_once = max(self.most_at_once, len(self.left))
        outputs = {}
        for request in list(self.left):
            self.left[request] -= 1
            done = self.left[request] == 0
            outputs[request] = Produced([self.steps], "length" if done else None)
            if done:
                del self.left[request]
        return outputs

    def cache_usage(self) -> float:
        return 0.25


@dataclass
class Script:
    """A mailbox: one list of commands a turn; sleeping for ever on an empty one ends the test."""

    turns: deque[list[wire.Message]] = field(default_factory=deque)
    sent: list[wire.Message] = field(default_factory=list)
    pauses: list[float | None] = field(default_factory=list)

    def send(self, message: wire.Message) -> None:
        self.sent.append(message)

    def receive(self, timeout: float | None) -> list[wire.Message]:
        self.pauses.append(timeout)
        if self.turns:
            return self.turns.popleft()
        if timeout is None:
            raise EOFError
        return []

    def finished(self) -> dict[int, str]:
        reports = [message for message in self.sent if isinstance(message, wire.Progress)]
        return {id: reason for report in reports for id, _, reason in report.outputs if reason is not None}

    def refused(self) -> dict[int, wire.Rejected]:
        return {message.id: message for message in self.sent if isinstance(message, wire.Rejected)}


def add(id: int, max_tokens: int | None = 3, **prompt: object) -> wire.Add:
    given = prompt or {"token_ids": [1, 2, 3]}
    return wire.Add(id, {"max_tokens": max_tokens}, **given)  # type: ignore[arg-type]


def play(*turns: list[wire.Message], model: CountingModel | None = None, most: int = 2) -> Script:
    script = Script(deque(turns))
    loop = GenerationLoop(model or CountingModel(), script, most, step_interval=0.0, clock=lambda: 0.0)
    with pytest.raises(EOFError):
        loop.run()
    return script


def test_every_request_runs_to_its_end() -> None:
    script = play([add(1), add(2), add(3)], [add(4)])
    assert script.finished() == dict.fromkeys([1, 2, 3, 4], "length")


def test_no_more_than_max_num_seqs_requests_run_at_once() -> None:
    model = CountingModel()
    play([add(id) for id in range(1, 9)], model=model, most=2)
    assert model.most_at_once == 2


def test_a_probe_goes_before_everybody_in_a_place_of_its_own() -> None:
    model = CountingModel()
    probe = wire.Add(9, {"max_tokens": 1}, token_ids=[1], probe=True)

    script = play([add(id, 15) for id in range(1, 5)], [], [probe], model=model, most=2)

    assert model.most_at_once == 2 + wire.PROBE_PLACES
    assert list(script.finished()) == [9, 1, 2, 3, 4]


def test_an_idle_loop_sleeps_until_a_command_comes() -> None:
    script = play([add(1, 1)])
    assert script.pauses[0] is None
    assert script.pauses[-1] is None


def test_a_running_and_a_waiting_request_can_be_cancelled() -> None:
    model = CountingModel()
    commands: list[wire.Message] = [add(1, 15), add(2, 15), add(3, 15)]
    script = play(commands, [wire.Cancel(1), wire.Cancel(3)], model=model)
    assert script.finished() == {1: "cancelled", 3: "cancelled", 2: "length"}
    assert model.steps < 20


def test_cancelling_a_finished_request_does_nothing() -> None:
    assert play([add(1, 1)], [wire.Cancel(1)]).finished() == {1: "length"}


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "code"),
    [
        ({"token_ids": [1] * 20}, 1, "context_length_exceeded"),
        ({"token_ids": [1] * 25}, None, "context_length_exceeded"),
        ({"token_ids": [1] * 10}, 11, "context_length_exceeded"),
        ({"token_ids": [50]}, 1, "invalid_prompt"),
        ({"token_ids": [-1]}, 1, "invalid_prompt"),
        ({"text": "  "}, 1, "invalid_prompt"),
        ({"text": "unencodable"}, 1, "invalid_prompt"),
    ],
)
def test_what_cannot_run_is_refused_and_the_loop_goes_on(
    prompt: dict[str, object], max_tokens: int | None, code: str
) -> None:
    script = play([add(1, max_tokens, **prompt), add(2)])
    assert (script.refused()[1].status, script.refused()[1].code) == (400, code)
    assert script.finished() == {2: "length"}


def test_without_a_limit_an_answer_may_fill_the_context() -> None:
    model = CountingModel()
    play([add(1, None, token_ids=[1] * 5)], model=model)
    assert model.steps == 15


def test_steps_keep_the_interval_between_them() -> None:
    now = [0.0]
    script = Script(deque([[add(1, 5)]]))

    def receive(timeout: float | None) -> list[wire.Message]:
        now[0] += timeout or 0.0
        return Script.receive(script, timeout)

    paced = Script(script.turns, script.sent, script.pauses)
    paced.receive = receive  # type: ignore[method-assign]
    model = CountingModel()
    loop = GenerationLoop(model, paced, 2, step_interval=0.5, clock=lambda: now[0])
    with pytest.raises(EOFError):
        loop.run()
    assert model.steps == 5
    assert now[0] == pytest.approx(2.0)


def test_a_step_that_raises_ends_the_loop() -> None:
    class BrokenModel(CountingModel):
        def step(self) -> dict[int, Produced]:
            raise RuntimeError("out of memory")

    loop = GenerationLoop(BrokenModel(), Script(deque([[add(1)]])), 2, 0.0, clock=lambda: 0.0)
    with pytest.raises(RuntimeError, match="out of memory"):
        loop.run()


def test_the_warm_up_generates_for_real() -> None:
    model = CountingModel()
    warm_up(model)
    assert model.steps == 4
    assert not model.has_work()


def test_the_engine_knows_observers_by_the_header_that_they_send() -> None:
    assert app.PROBE_HEADER == names.PROBE_HEADER
