"""vLLM: its OpenAI server as a child process on a private port of the loopback device.

Each task is one streaming request to the child; closing it makes vLLM abort the generation. The child's server and its
engine are separate processes, so that an answer to /health says little of the engine. Signs of progress are the tokens
that come, and, for prompts that take long before the first one, the child's metrics: its engine sends new values with
each step.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Callable, Sequence
from functools import partial

import aiohttp

from holdfast_engine.admission import PROBE_PLACES
from holdfast_engine.engines import vllm_api
from holdfast_engine.engines.served import ServedEngine, free_port
from holdfast_engine.errors import EngineError, UnavailableError
from holdfast_engine.port import Event, Loaded, Resting, Step, Task
from holdfast_engine.prepare import WantedModel

COMMAND = "python3 -m vllm.entrypoints.openai.api_server"
"""The `vllm` command does the same, but needs the package's metadata."""
LOOK_SECONDS = 0.5
"""Between two looks at the child's metrics while it works."""
ANSWER_SECONDS = 5.0
KEEP_SECONDS = 2.0
"""For an idle connection; less than the child keeps it (5 s), or a request would now and then meet its end."""


class VllmEngine(ServedEngine):
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
        super().__init__(model, vllm_api.SLEEP_ENVIRONMENT if sleeps else None)
        port = free_port()
        self._arguments = partial(
            vllm_api.arguments, arguments, served_name, port, more_places=PROBE_PLACES, sleeps=sleeps
        )
        self._arguments(model=None)
        self._server = shlex.split(command)
        self._priorities = vllm_api.knows_priorities(arguments)
        self._top_logprobs = vllm_api.top_logprobs(arguments)
        self._served_name = served_name
        self._url = f"http://127.0.0.1:{port}"
        self._session: aiohttp.ClientSession | None = None

    def _command(self, model: str | None) -> list[str]:
        return [*self._server, *self._arguments(model=model)]

    async def _connect(self) -> None:
        self._session = aiohttp.ClientSession(
            self._url,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_SECONDS),
        )

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

    async def _generate(self, task: Task, report: Callable[[Event], None]) -> None:
        assert self._session is not None
        path, body = vllm_api.request(task, self._served_name, self._priorities)
        try:
            async with self._session.post(path, json=body, headers=task.trace_headers) as response:
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

    async def _is_up(self) -> bool:
        return await self._get("/health") is not None

    async def _describe(self) -> Loaded:
        models = await self._get("/v1/models")
        return Loaded(vllm_api.max_model_len(models or ""), top_logprobs=self._top_logprobs)

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
