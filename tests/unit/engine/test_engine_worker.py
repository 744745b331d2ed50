"""The generation loop with a model that only counts: queueing, cancelling, pacing and refusals."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from holdfast.api import names
from holdfast_engine import app, wire
from holdfast_engine.port import Sampling
from holdfast_engine.worker import GATHER_SECONDS, GenerationLoop, warm_up


@dataclass(frozen=True)
class Produced:
    tokens: list[int]
    finish_reason: str | None
    logprobs: list[float] = field(default_factory=list)


@dataclass
class CountingModel:
    """Answers each request with 0, 1, 2, … up to its limit."""

    left: dict[int, int] = field(default_factory=dict)
    steps: int = 0
    asleep: bool = False
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
        outputs = {}
        for request in list(self.left):
            self.left[request] -= 1
            done = self.left[request] == 0
            outputs[request] = Produced([self.steps], "length" if done else None, [-0.5])
            if done:
                del self.left[request]
        return outputs

    def cache_usage(self) -> float:
        return 0.25

    def rest(self, asleep: bool) -> None:
        self.asleep = asleep


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


def play(*turns: list[wire.Message], model: CountingModel | None = None) -> Script:
    script = Script(deque(turns))
    loop = GenerationLoop(model or CountingModel(), script, step_interval=0.0, clock=lambda: 0.0)
    with pytest.raises(EOFError):
        loop.run()
    return script


def test_every_request_runs_to_its_end() -> None:
    script = play([add(1), add(2), add(3)], [add(4)])
    assert script.finished() == dict.fromkeys([1, 2, 3, 4], "length")


def test_an_idle_loop_sleeps_until_a_command_comes() -> None:
    script = play([add(1, 1)])
    assert script.pauses[0] is None
    assert script.pauses[-1] is None


def test_a_running_request_can_be_cancelled() -> None:
    model = CountingModel()
    script = play([add(1, 15), add(2, 15)], [wire.Cancel(1)], model=model)
    assert script.finished() == {1: "cancelled", 2: "length"}
    assert model.steps < 20


def test_log_probabilities_come_with_the_tokens_of_those_who_asked() -> None:
    asking = wire.Add(1, {"max_tokens": 2, "logprobs": 0}, token_ids=[1])
    reports = [each for each in play([asking, add(2, 2)]).sent if isinstance(each, wire.Progress)]
    assert [each.logprobs for each in reports] == [[(1, [-0.5])], [(1, [-0.5])]]


def test_it_falls_asleep_and_generates_before_it_says_that_it_is_awake() -> None:
    model = CountingModel()
    script = play([wire.Rest(True)], [wire.Rest(False)], model=model)
    assert script.sent == [wire.Resting(True), wire.Resting(False)]
    assert (model.asleep, model.steps) == (False, 4)


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
    loop = GenerationLoop(model, paced, step_interval=0.5, clock=lambda: now[0])
    with pytest.raises(EOFError):
        loop.run()
    assert model.steps == 5
    assert now[0] == pytest.approx(2.0)


def test_a_step_that_raises_ends_the_loop() -> None:
    class BrokenModel(CountingModel):
        def step(self) -> dict[int, Produced]:
            raise RuntimeError("out of memory")

    loop = GenerationLoop(BrokenModel(), Script(deque([[add(1)]])), 0.0, clock=lambda: 0.0)
    with pytest.raises(RuntimeError, match="out of memory"):
        loop.run()


def test_the_warm_up_generates_for_real() -> None:
    model = CountingModel()
    warm_up(model)
    assert model.steps == 4
    assert not model.has_work()


def test_the_engine_knows_observers_by_the_header_that_they_send() -> None:
    assert app.PROBE_HEADER == names.PROBE_HEADER


def reports(step_seconds: float, tokens: int) -> list[wire.Progress]:
    """What is told of two requests by an engine whose steps take so long."""
    now = [0.0]

    class TimedModel(CountingModel):
        def step(self) -> dict[int, Produced]:
            now[0] += step_seconds
            return super().step()

    script = Script(deque([[add(1, tokens), add(2, tokens - 1)]]))
    loop = GenerationLoop(TimedModel(info=wire.Loaded(["a"] * 50, [], "gpt2", 100)), script, 0.0, lambda: now[0])
    with pytest.raises(EOFError):
        loop.run()
    return [message for message in script.sent if isinstance(message, wire.Progress)]


def test_tokens_of_very_short_steps_are_told_together_but_the_first_and_the_last_at_once() -> None:
    told = reports(0.0005, 12)
    lengths = [len(tokens) for report in told for id, tokens, _ in report.outputs if id == 1]
    assert lengths[0] == 1
    assert sum(lengths) == 12
    assert 1 < max(lengths) <= GATHER_SECONDS / 0.0005
    assert [reason for report in told for _, _, reason in report.outputs if reason] == ["length", "length"]


def test_tokens_of_longer_steps_are_told_one_by_one() -> None:
    assert [len(report.outputs) for report in reports(0.0021, 6)] == [2, 2, 2, 2, 2, 1]
