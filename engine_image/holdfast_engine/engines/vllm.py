"""vLLM: its OpenAI server as a child process on a private port of the loopback device.

Each task is one streaming request to the child; closing it makes vLLM abort the generation. The child's server and its
engine are separate processes, so that an answer to /health says little of the engine. Signs of progress are the tokens
that come, and, for prompts that take long before the first one, the child's metrics: its engine sends new values with
each step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import socket
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import aiohttp

from holdfast_engine.admission import PROBE_PLACES
from holdfast_engine.causes import Cause, CauseReason, cause_of, exit_code, tell
from holdfast_engine.engines import vllm_api
from holdfast_engine.engines.child import Child
from holdfast_engine.errors import EngineError, UnavailableError
from holdfast_engine.model_errors import ModelError
from holdfast_engine.port import Cancelled, Event, Failed, Loaded, Ready, Refused, Resting, Sampling, Step, Task
from holdfast_engine.prepare import WantedModel, obtained

logger = logging.getLogger(__name__)
COMMAND = "python3 -m vllm.entrypoints.openai.api_server"
"""The `vllm` command does the same, but needs the package's metadata."""
ASK_SECONDS = 0.2
"""Between two questions whether the child is up."""
LOOK_SECONDS = 0.5
"""Between two looks at the child's metrics while it works."""
ANSWER_SECONDS = 5.0
KEEP_SECONDS = 2.0
"""For an idle connection; less than the child keeps it (5 s), or a request would now and then meet its end."""
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


class VllmEngine:
    """vLLM with the user's `arguments`; raises ValueError when one of them is the shim's own.

    `model` None: what the arguments name, which vLLM gets by itself. `sleeps`: whether `rest` will be told.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        served_name: str,
        model: WantedModel | None = None,
        command: str = COMMAND,
        sleeps: bool = False,
    ) -> None:
        port = _free_port()
        self._arguments = partial(
            vllm_api.arguments, arguments, served_name, port, more_places=PROBE_PLACES, sleeps=sleeps
        )
        self._arguments(model=None)
        self._command = shlex.split(command)
        self._environment = vllm_api.SLEEP_ENVIRONMENT if sleeps else {}
        self._model = model
        self._priorities = vllm_api.knows_priorities(arguments)
        self._top_logprobs = vllm_api.top_logprobs(arguments)
        self._served_name = served_name
        self._url = f"http://127.0.0.1:{port}"
        self._child = Child()
        self._report: Callable[[Event], None] = lambda _: None
        self._session: aiohttp.ClientSession | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._followers: set[asyncio.Task[None]] = set()
        self._end_awaited: asyncio.Task[None]
        self._failed = False

    async def start(self, report: Callable[[Event], None]) -> None:
        self._report = report
        self._session = aiohttp.ClientSession(
            self._url,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_SECONDS),
        )
        self._follow(self._begin())

    async def _begin(self) -> None:
        """Get the model, start the child with it."""
        try:
            model = None if self._model is None else str(await obtained(self._model))
        except ModelError as error:
            self._fail(cause_of(error), error.exit_code)
            return
        command = [*self._command, *self._arguments(model=model)]
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
        self._follow(self._rest(asleep))

    async def _rest(self, asleep: bool) -> None:
        """At level 1 vLLM keeps the weights in the machine's memory, and drops the KV cache."""
        assert self._session is not None
        try:
            async with self._session.post("/sleep?level=1" if asleep else "/wake_up") as response:
                if response.status != 200:
                    raise vllm_api.told_error(response.status, await response.read())
        except (aiohttp.ClientError, OSError, EngineError) as error:
            await self._fail_late(f"It did not {'fall asleep' if asleep else 'awake'}: {error}")
        else:
            self._report(Resting(asleep))

    async def stop(self, at_once: bool = False) -> None:
        self._failed = True
        for follower in self._followers:
            follower.cancel()
        await self._child.stop(0 if at_once else STOP_SECONDS)

    async def _generate(self, task: Task, report: Callable[[Event], None]) -> None:
        assert self._session is not None
        path, body = vllm_api.request(task, self._served_name, self._priorities)
        try:
            async with self._session.post(path, json=body) as response:
                if response.status != 200:
                    raise vllm_api.told_error(response.status, await response.read())
                answer = vllm_api.AnswerStream(task.id, task.sampling.logprobs or 0)
                async for data in response.content.iter_any():
                    for event in answer.feed(data):
                        report(event)
        except (aiohttp.ClientError, OSError) as error:
            raise UnavailableError(f"The engine's process does not answer: {error}", code="failed") from error
        if not answer.ended:
            raise UnavailableError("The engine's process ended its answer too early.", code="failed")

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

    async def _fail_late(self, what: str) -> None:
        """Fail, unless the child dies of it and its own words tell the cause."""
        await asyncio.wait([self._end_awaited], timeout=DEATH_SECONDS)
        self._fail(Cause(CauseReason.FAILED, what))

    async def _await_ready(self) -> None:
        while await self._get("/health") is None:  # noqa: ASYNC110 - another process becomes ready
            await asyncio.sleep(ASK_SECONDS)
        models = await self._get("/v1/models")
        self._report(Loaded(vllm_api.max_model_len(models or ""), top_logprobs=self._top_logprobs))
        try:
            for sampling in WARM_UP:
                task = Task(0, sampling, text="Hello", chosen=frozenset({"temperature", "top_p"}))
                await self._generate(task, lambda _: None)
        except EngineError as error:
            await self._fail_late(f"The warm-up generation failed: {error}")
        else:
            self._report(Ready())

    async def _look(self) -> None:
        before, used = "", 0.0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if before and not self._tasks and not used:
                continue
            if (page := await self._get("/metrics")) is None:
                continue
            now, usage = vllm_api.signs(page)
            if before and now != before:
                self._report(Step(cache_usage=usage, prefix_cache=vllm_api.prefix_cache(page)))
            before, used = now, usage or 0.0

    async def _get(self, path: str) -> str | None:
        """What the child answers there; None when it answers nothing good soon."""
        assert self._session is not None
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._session.get(path, timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as response:
                text = await response.text()
                return text if response.status == 200 else None
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
