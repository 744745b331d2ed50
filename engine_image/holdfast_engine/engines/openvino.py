"""The CPU engine: OpenVINO GenAI in a pipeline process beside this one (`holdfast_engine.worker`).

Translates between the port and the messages of `holdfast_engine.wire`; keeps no account of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from holdfast_engine import wire
from holdfast_engine.causes import Cause, CauseReason, cause_of, tell
from holdfast_engine.errors import GenerationError, refusal
from holdfast_engine.model_errors import ModelError
from holdfast_engine.port import (
    Accepted,
    Cancelled,
    Event,
    Failed,
    Loaded,
    Output,
    Ready,
    Refused,
    Resting,
    Step,
    Task,
    TokenLogprobs,
)
from holdfast_engine.prepare import WantedModel, prepared
from holdfast_engine.vocabulary import Vocabulary

logger = logging.getLogger(__name__)
EXIT_SECONDS = 1.0
IGNORED = "The request does not fit the engine's KV cache."


class OpenVinoEngine:
    """The pipeline process. Each of its messages is sent between two steps: any is a sign of progress."""

    def __init__(self, config: wire.WorkerConfig, model: WantedModel) -> None:
        self._config = config
        self._model = model
        self._report: Callable[[Event], None] = lambda _: None
        self._vocabulary: Vocabulary | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._work: asyncio.Task[None] | None = None

    async def start(self, report: Callable[[Event], None]) -> None:
        self._report = report
        self._work = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """Get the model, start the pipeline process with it, follow it to its end."""
        try:
            model = await prepared(self._model)
            await self._follow(await self._launch(model))
        except ModelError as error:
            self._report(Failed(cause_of(error), error.exit_code))
        except Exception as error:
            logger.exception("the model cannot be made ready")
            self._report(Failed(Cause(CauseReason.FAILED, f"{type(error).__name__}: {error}")))

    async def _launch(self, model: Path) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "holdfast_engine.worker"),
            *(str(theirs.fileno()), json.dumps(asdict(replace(self._config, model=str(model))))),
            pass_fds=[theirs.fileno()],
            stdin=asyncio.subprocess.DEVNULL,
        )
        theirs.close()
        reader, self._writer = await asyncio.open_connection(sock=ours)
        return reader

    def submit(self, task: Task) -> None:
        self._send(wire.Add(task.id, asdict(task.sampling), task.text, task.token_ids, task.messages))

    def cancel(self, id: int) -> None:
        self._send(wire.Cancel(id))

    def rest(self, asleep: bool) -> None:
        self._send(wire.Rest(asleep))

    async def stop(self, at_once: bool = False) -> None:  # noqa: ARG002 - it has no manner of its own to end in
        if self._work is not None:
            self._work.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def _send(self, message: wire.Message) -> None:
        if self._writer is not None:
            self._writer.write(wire.encode(message))

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        failure = None
        while (message := await wire.read_message(reader)) is not None:
            if isinstance(message, wire.Failed):
                failure = message.message
            else:
                if isinstance(message, wire.Loaded):
                    self._vocabulary = Vocabulary(message.pieces, message.control, message.kind)
                for event in _told(message, self._vocabulary):
                    self._report(event)
        code = await self._exit_code()
        lines = [f"the pipeline process ended with code {code}" if failure is None else failure]
        self._report(Failed(tell(lines, code)))

    async def _exit_code(self) -> int | None:
        """The pipeline process's, once it has closed its end; None when it does not end."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), EXIT_SECONDS)
        return self._process.returncode


def _told(message: wire.Message, vocabulary: Vocabulary | None) -> list[Event]:
    match message:
        case wire.Loaded():
            return [Loaded(message.max_model_len, vocabulary, top_logprobs=0)]
        case wire.Ready():
            return [Ready()]
        case wire.Resting(asleep):
            return [Resting(asleep)]
        case wire.Accepted(id, prompt_ids):
            return [Step(), Accepted(id, prompt_ids)]
        case wire.Rejected(id, status, code, text):
            return [Step(), Refused(id, refusal(status, code, text))]
        case wire.Progress():
            return _progress(message, vocabulary)
        case _:
            raise TypeError(f"not a report: {message}")


def _progress(message: wire.Progress, vocabulary: Vocabulary | None) -> list[Event]:
    outputs: list[Output] = []
    ended: list[Event] = []
    logprobs = dict(message.logprobs)
    for id, tokens, reason in message.outputs:
        if reason == "cancelled":
            ended.append(Cancelled(id))
        elif reason == "ignored":
            ended.append(Refused(id, GenerationError(IGNORED, code="kv_cache_too_small")))
        else:
            assert vocabulary is not None
            told = _logprobs(tokens, logprobs[id], vocabulary) if id in logprobs else None
            outputs.append(Output(id, tokens, reason, logprobs=told))
    return [Step(outputs, message.cache_usage), *ended]


def _logprobs(tokens: list[int], values: list[float], vocabulary: Vocabulary) -> list[TokenLogprobs]:
    texts = map(vocabulary.token_bytes, tokens)
    return [
        TokenLogprobs(utf8.decode(errors="replace"), value, utf8=utf8)
        for utf8, value in zip(texts, values, strict=True)
    ]
