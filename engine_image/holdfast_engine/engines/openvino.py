"""The CPU engine: OpenVINO GenAI in a pipeline process beside this one (`holdfast_engine.worker`).

Translates between the port and the messages of `holdfast_engine.wire`; keeps no account of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict

from holdfast_engine import wire
from holdfast_engine.causes import tell
from holdfast_engine.errors import GenerationError, refusal
from holdfast_engine.port import Accepted, Cancelled, Event, Failed, Loaded, Output, Ready, Refused, Step, Task
from holdfast_engine.vocabulary import Vocabulary

EXIT_SECONDS = 1.0
IGNORED = "The request does not fit the engine's KV cache."


class OpenVinoEngine:
    """The pipeline process. Each of its messages is sent between two steps: any is a sign of progress."""

    def __init__(self, config: wire.WorkerConfig) -> None:
        self._config = config
        self._report: Callable[[Event], None] = lambda _: None
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._follower: asyncio.Task[None] | None = None

    async def start(self, report: Callable[[Event], None]) -> None:
        self._report = report
        ours, theirs = socket.socketpair()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "holdfast_engine.worker"),
            *(str(theirs.fileno()), json.dumps(asdict(self._config))),
            pass_fds=[theirs.fileno()],
            stdin=asyncio.subprocess.DEVNULL,
        )
        theirs.close()
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._follower = asyncio.create_task(self._follow(reader))

    def submit(self, task: Task) -> None:
        self._send(wire.Add(task.id, asdict(task.sampling), task.text, task.token_ids, task.messages, task.probe))

    def cancel(self, id: int) -> None:
        self._send(wire.Cancel(id))

    async def stop(self) -> None:
        self.kill()

    def kill(self) -> None:
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
                for event in _events(message):
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


def _events(message: wire.Message) -> list[Event]:
    match message:
        case wire.Loaded():
            return [Loaded(message.max_model_len, Vocabulary(message.pieces, message.control, message.kind))]
        case wire.Ready():
            return [Ready()]
        case wire.Accepted(id, prompt_ids):
            return [Step(), Accepted(id, prompt_ids)]
        case wire.Rejected(id, status, code, text):
            return [Step(), Refused(id, refusal(status, code, text))]
        case wire.Progress():
            return _progress(message)
        case _:
            raise TypeError(f"not a report: {message}")


def _progress(message: wire.Progress) -> list[Event]:
    outputs: list[Output] = []
    ended: list[Event] = []
    for id, tokens, reason in message.outputs:
        if reason == "cancelled":
            ended.append(Cancelled(id))
        elif reason == "ignored":
            ended.append(Refused(id, GenerationError(IGNORED, code="kv_cache_too_small")))
        else:
            outputs.append(Output(id, tokens, reason))
    return [Step(message.started, outputs, message.cache_usage), *ended]
