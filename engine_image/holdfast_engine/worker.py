"""The pipeline process: one thread that owns the pipeline and runs its generation loop.

Started by `holdfast_engine.engines.openvino` as `python -m holdfast_engine.worker FD CONFIG`, FD being one end of a
socket pair. Each turn takes the commands that are there, runs one step and reports it. With nothing to do it sleeps in
the socket's read: no polling. It ends when the other end closes, and the kernel ends it when the HTTP process dies.
"""

from __future__ import annotations

import ctypes
import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from holdfast_engine.port import Sampling
from holdfast_engine.wire import (
    Accepted,
    Add,
    Cancel,
    Channel,
    Failed,
    Loaded,
    Message,
    Progress,
    Ready,
    Rejected,
    Rest,
    Resting,
    WorkerConfig,
)

WARM_UP_ID = 0
WARM_UP_TOKENS = 4
GATHER_SECONDS = 0.002
_PR_SET_PDEATHSIG = 1


class Produced(Protocol):
    @property
    def tokens(self) -> list[int]: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def logprobs(self) -> list[float]: ...


class Model(Protocol):
    """What the loop needs of `holdfast_engine.inference.Inference`."""

    @property
    def info(self) -> Loaded: ...
    def encode_text(self, text: str) -> list[int]: ...
    def encode_messages(self, messages: Sequence[Mapping[str, str]]) -> list[int]: ...
    def add(self, request: int, prompt_ids: Sequence[int], max_tokens: int, sampling: Sampling) -> None: ...
    def cancel(self, request: int) -> None: ...
    def has_work(self) -> bool: ...
    def step(self) -> Mapping[int, Produced]: ...
    def cache_usage(self) -> float: ...
    def rest(self, asleep: bool) -> None: ...


class Mailbox(Protocol):
    """What the loop needs of `holdfast_engine.wire.Channel`."""

    def send(self, message: Message) -> None: ...
    def receive(self, timeout: float | None) -> list[Message]: ...


class RefusedError(Exception):
    """A request that cannot run, as it is told to the client."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Gathering:
    """What came of steps that are much shorter than anybody would notice, told together.

    A message costs both processes about as much as a token's step of a tiny model. Nothing waits for longer than
    `GATHER_SECONDS`, no first token waits at all, and with steps that take as long as a real model's none does.
    """

    def __init__(self) -> None:
        self._news: dict[int, tuple[int, list[int], str | None]] = {}
        self._logprobs: dict[int, list[float]] = {}
        self._since = 0.0

    def add(self, outputs: Mapping[int, Produced], with_logprobs: set[int], now: float) -> None:
        """What one step that ended `now` produced; `with_logprobs` are the requests that asked for those."""
        if not self._news:
            self._since = now
        for id, output in outputs.items():
            before = self._news.get(id, (id, [], None))[1]
            self._news[id] = (id, before + output.tokens, output.finish_reason)
            if id in with_logprobs:
                self._logprobs[id] = self._logprobs.get(id, []) + output.logprobs

    def due(self, now: float, step_seconds: float) -> bool:
        """Whether they would wait too long for another step, which may take `step_seconds`."""
        return now - self._since + step_seconds >= GATHER_SECONDS

    def take(self, cache_usage: float) -> Progress:
        """All of it, in one report."""
        report = Progress(list(self._news.values()), list(self._logprobs.items()), cache_usage)
        self._news, self._logprobs = {}, {}
        return report


class GenerationLoop:
    """Decides nothing about health: it reports its steps, and the HTTP process judges."""

    def __init__(
        self,
        model: Model,
        mailbox: Mailbox,
        step_interval: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._mailbox = mailbox
        self._step_interval = step_interval
        self._clock = clock
        self._running: set[int] = set()
        self._begun: set[int] = set()
        """Those of which a token was told."""
        self._gathering = Gathering()
        self._with_logprobs: set[int] = set()
        self._next_step = clock()

    def run(self) -> None:
        """Until the mailbox raises EOFError."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Take commands; then, if it is time, step."""
        pause = max(0.0, self._next_step - self._clock()) if self._model.has_work() else None
        for command in self._mailbox.receive(pause):
            self._obey(command)
        if not self._model.has_work():
            return
        now = self._clock()
        if now < self._next_step:
            return
        self._next_step = now + self._step_interval
        self._step()

    def _obey(self, command: Message) -> None:
        match command:
            case Add():
                try:
                    self._add(command)
                except RefusedError as refusal:
                    self._mailbox.send(Rejected(command.id, refusal.status, refusal.code, str(refusal)))
            case Cancel(id):
                self._cancel(id)
            case Rest(asleep):
                self._rest(asleep)
            case _:
                raise TypeError(f"not a command: {command}")

    def _add(self, command: Add) -> None:
        sampling = Sampling(**command.sampling)  # type: ignore[arg-type]
        prompt_ids = self._encode(command)
        if not prompt_ids:
            raise RefusedError(400, "invalid_prompt", "The prompt is empty: it must hold at least one token.")
        room = self._model.info.max_model_len - len(prompt_ids)
        wanted = sampling.max_tokens or max(room, 1)
        if wanted > room:
            raise RefusedError(
                400,
                "context_length_exceeded",
                f"This model's maximum context length is {self._model.info.max_model_len} tokens, but "
                f"{len(prompt_ids) + wanted} were requested ({len(prompt_ids)} in the prompt, {wanted} to "
                "generate).",
            )
        try:
            self._model.add(command.id, prompt_ids, wanted, sampling)
        except Exception as error:
            raise RefusedError(400, "invalid_request", f"The engine cannot do this: {error}") from error
        self._mailbox.send(Accepted(command.id, prompt_ids))
        self._running.add(command.id)
        if sampling.logprobs is not None:
            self._with_logprobs.add(command.id)

    def _encode(self, command: Add) -> list[int]:
        if command.token_ids is not None:
            known = len(self._model.info.pieces)
            if any(not 0 <= token < known for token in command.token_ids):
                raise RefusedError(400, "invalid_prompt", f"Token ids must be at least 0 and less than {known}.")
            return command.token_ids
        try:
            if command.messages is not None:
                return self._model.encode_messages(command.messages)
            return self._model.encode_text(command.text or "")
        except Exception as error:
            raise RefusedError(400, "invalid_prompt", f"The prompt cannot be tokenized: {error}") from error

    def _cancel(self, request: int) -> None:
        if request not in self._running:
            return
        self._forget({request})
        self._model.cancel(request)
        self._mailbox.send(Progress(outputs=[(request, [], "cancelled")]))

    def _rest(self, asleep: bool) -> None:
        self._model.rest(asleep)
        if not asleep:
            warm_up(self._model)
        self._mailbox.send(Resting(asleep))

    def _forget(self, requests: set[int]) -> None:
        self._running -= requests
        self._begun -= requests
        self._with_logprobs -= requests

    def _step(self) -> None:
        begun = self._clock()
        outputs = self._model.step()
        now = self._clock()
        self._gathering.add(outputs, self._with_logprobs, now)
        ended = {id for id, output in outputs.items() if output.finish_reason is not None}
        first = not self._begun.issuperset(outputs)
        self._begun.update(outputs)
        self._forget(ended)
        if ended or first or self._step_interval or self._gathering.due(now, now - begun):
            self._mailbox.send(self._gathering.take(self._model.cache_usage() if self._running else 0.0))


def warm_up(model: Model) -> None:
    """One real generation, so that the first request finds everything compiled and allocated."""
    model.add(WARM_UP_ID, model.encode_text("Hello") or [0], WARM_UP_TOKENS, Sampling(temperature=0.0))
    while model.has_work():
        model.step()


def serve(channel: Channel, config: WorkerConfig) -> None:
    """Load, warm up, generate; what goes wrong is told to the HTTP process before it is raised."""
    try:
        from holdfast_engine.inference import Inference

        model = Inference(config)
        channel.send(model.info)
        warm_up(model)
        channel.send(Ready())
        GenerationLoop(model, channel, config.step_interval).run()
    except (EOFError, ConnectionError):
        return
    except Exception as error:
        channel.send(Failed(f"{type(error).__name__}: {error}"))
        raise


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    serve(Channel(connection), WorkerConfig(**json.loads(sys.argv[2])))


if __name__ == "__main__":
    main()
