"""What engines have in common whose server is a child process on private ports of the loopback device.

A task is one request to the child, whose end cancels it there. The child's own end ends the engine, with the cause that
its last lines tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import shlex
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from holdfast_engine.causes import Cause, CauseReason, cause_of, exit_code, tell
from holdfast_engine.engines.child import Child
from holdfast_engine.errors import EngineError
from holdfast_engine.model_errors import ModelError
from holdfast_engine.port import Cancelled, Event, Failed, Loaded, Ready, Refused, Sampling, Task
from holdfast_engine.prepare import WantedModel, obtained

logger = logging.getLogger(__name__)
ASK_SECONDS = 0.2
"""Between two questions whether the child is up."""
DEATH_SECONDS = 5.0
"""For a child to die of what made it answer wrongly, so that its own words tell the cause."""
STOP_SECONDS = 10.0
WARM_UP = (
    Sampling(max_tokens=4, temperature=0.0),
    Sampling(max_tokens=4, temperature=1.0, top_p=0.9),
    Sampling(max_tokens=4, temperature=0.0, logprobs=0),
)
"""vLLM compiles what samples and what tells log probabilities when it is first asked to, for seconds in which no step
completes: not while users wait."""


class UnsuitableError(Exception):
    """The child serves nothing that can be asked for text."""


class ServedEngine(ABC):
    """A child and the tasks given to it. How it is asked is each engine's own matter.

    `model` None: what the user's arguments name, which the child gets by itself.
    """

    def __init__(self, model: WantedModel | None, environment: Mapping[str, str] | None = None) -> None:
        self._wanted = model
        self._environment = environment
        self._child = Child()
        self._report: Callable[[Event], None] = lambda _: None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._followers: set[asyncio.Task[None]] = set()
        self._end_awaited: asyncio.Task[None]
        self._failed = False

    @abstractmethod
    async def _connect(self) -> None:
        """Make what talks to the child, which need not be up."""

    @abstractmethod
    def _command(self, model: str | None) -> list[str]:
        """What starts the child with the model at that path."""

    @abstractmethod
    async def _is_up(self) -> bool:
        """Whether the child has loaded its model."""

    @abstractmethod
    async def _describe(self) -> Loaded:
        """What was loaded; raises UnsuitableError."""

    @abstractmethod
    async def _generate(self, task: Task, report: Callable[[Event], None]) -> None:
        """Ask the child for `task` and report what it answers, up to its end; raises EngineError."""

    @abstractmethod
    async def _look(self) -> None:
        """Watch the child while it lives, for signs that no answer shows."""

    async def start(self, report: Callable[[Event], None]) -> None:
        self._report = report
        await self._connect()
        self._follow(self._begin())

    async def _begin(self) -> None:
        """Get the model, start the child with it."""
        try:
            model = None if self._wanted is None else str(await obtained(self._wanted))
        except ModelError as error:
            self._fail(cause_of(error), error.exit_code)
            return
        command = self._command(model)
        logger.info("starting: %s", shlex.join(command))
        await self._child.start(command, self._environment)
        self._end_awaited = self._follow(self._await_end())
        self._follow(self._await_ready())
        self._follow(self._look())

    def _follow(self, what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        follower = asyncio.create_task(what)
        self._followers.add(follower)
        follower.add_done_callback(self._check)
        return follower

    def submit(self, task: Task) -> None:
        working = asyncio.create_task(self._generate(task, self._report))
        self._tasks[task.id] = working
        working.add_done_callback(partial(self._end, task.id))

    def cancel(self, id: int) -> None:
        if (working := self._tasks.get(id)) is not None:
            working.cancel()

    def rest(self, asleep: bool) -> None:
        raise NotImplementedError(f"asleep={asleep}: this engine is not told to rest")

    async def stop(self, at_once: bool = False) -> None:
        self._failed = True
        for follower in self._followers:
            follower.cancel()
        await self._child.stop(0 if at_once else STOP_SECONDS)

    def _end(self, id: int, working: asyncio.Task[None]) -> None:
        """A task's work is over: nothing to say where its last output has said so."""
        self._tasks.pop(id, None)
        if working.cancelled():
            self._report(Cancelled(id))
        elif (error := working.exception()) is not None:
            if not isinstance(error, EngineError):
                logger.error("a request failed", exc_info=error)
                error = EngineError(f"Internal error: {type(error).__name__}")
            self._report(Refused(id, error))

    async def _await_end(self) -> None:
        code = await self._child.wait()
        self._fail(tell(self._child.last_lines(), code), exit_code(code))

    async def _await_ready(self) -> None:
        while not await self._is_up():  # noqa: ASYNC110 - another process becomes ready
            await asyncio.sleep(ASK_SECONDS)
        try:
            loaded = await self._describe()
            self._report(loaded)
            for sampling in WARM_UP:
                if sampling.logprobs is None or loaded.top_logprobs is not None:
                    task = Task(0, sampling, text="Hello", chosen=frozenset({"temperature", "top_p"}))
                    await self._generate(task, lambda _: None)
        except UnsuitableError as error:
            self._fail(Cause(CauseReason.FAILED, str(error)))
        except EngineError as error:
            await self._fail_late(f"The warm-up generation failed: {error}")
        else:
            self._report(Ready())

    async def _fail_late(self, what: str) -> None:
        """Fail, unless the child dies of it; with its own words where they tell the cause."""
        await asyncio.wait([self._end_awaited], timeout=DEATH_SECONDS)
        told = tell(self._child.last_lines(), None)
        self._fail(Cause(CauseReason.FAILED, what) if told.reason is CauseReason.FAILED else told)

    def _check(self, follower: asyncio.Task[None]) -> None:
        self._followers.discard(follower)
        if not follower.cancelled() and (error := follower.exception()) is not None:
            logger.error("the engine's process is no longer followed", exc_info=error)
            self._fail(Cause(CauseReason.FAILED, f"{type(error).__name__}: {error}"))

    def _fail(self, cause: Cause, code: int = 1) -> None:
        """The first failure is the cause, and the only one that is told."""
        if not self._failed:
            self._failed = True
            self._report(Failed(cause, code))


def free_port() -> int:
    """A port of the loopback device that nobody listens at.

    Below those that the kernel gives to outgoing connections (from 32768 on), one of which might take it before a child
    that starts slowly does.
    """
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
