"""Triton: its server as a child process, with the user's model repository.

Each task is a gRPC stream of its own; cancelling it makes Triton cancel the request. A model whose process has died
stays "ready" in Triton's eyes: its answers tell. Signs of progress are the texts that come and, where the model reports
vLLM's metrics (REPORT_CUSTOM_METRICS in its configuration), the counters that change with each of its engine's steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp
import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from holdfast_engine.causes import Cause, CauseReason
from holdfast_engine.engines import triton_api, vllm_api
from holdfast_engine.engines.served import ServedEngine, free_port
from holdfast_engine.errors import EngineError, UnavailableError
from holdfast_engine.port import Event, Loaded, Step, Task
from holdfast_engine.prepare import WantedModel

COMMAND = "tritonserver"
LOOK_SECONDS = 0.5
"""Between two looks at the child's state and metrics."""
ANSWER_SECONDS = 5.0
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
METADATA = (("triton_grpc_error", "true"),)
"""Errors in streams with a gRPC status, instead of words alone."""


class TritonEngine(ServedEngine):
    """Triton with the user's `arguments`; raises ValueError when one of them is the shim's own."""

    def __init__(
        self,
        arguments: Sequence[str],
        repository: WantedModel | None = None,
        model_name: str | None = None,
        command: str = COMMAND,
    ) -> None:
        super().__init__(repository)
        port, metrics_port = free_port(), free_port()
        self._arguments = triton_api.arguments(arguments, repository is not None, port, metrics_port)
        self._server = shlex.split(command)
        self._address = f"127.0.0.1:{port}"
        self._metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        self._repository: str | None = None
        self._model_name = model_name
        self._model: triton_api.Model | None = None
        self._stub: service_pb2_grpc.GRPCInferenceServiceStub
        self._session: aiohttp.ClientSession

    def _command(self, model: str | None) -> list[str]:
        self._repository = model
        return [*self._server, *(["--model-repository", model] if model is not None else []), *self._arguments]

    async def _connect(self) -> None:
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.aio.insecure_channel(self._address, OPTIONS))
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))

    async def _is_up(self) -> bool:
        with contextlib.suppress(grpc.aio.AioRpcError):
            return bool((await self._stub.ServerReady(pb.ServerReadyRequest(), timeout=ANSWER_SECONDS)).ready)
        return False

    async def _describe(self) -> Loaded:
        name = triton_api.choose(await self._stub.RepositoryIndex(pb.RepositoryIndexRequest()), self._model_name)
        config = (await self._stub.ModelConfig(pb.ModelConfigRequest(name=name))).config
        self._model = triton_api.model(config)
        return Loaded(self._max_model_len(name), tells_ids=self._model.tells_ids)

    def _max_model_len(self, name: str) -> int | None:
        """From the highest version's model.json, where the repository is a folder."""
        if self._repository is None:
            return None
        versions = [each for each in (Path(self._repository) / name).iterdir() if each.name.isdecimal()]
        for version in sorted(versions, key=lambda each: -int(each.name)):
            if (found := version / "model.json").is_file():
                return triton_api.max_model_len(found.read_text(errors="replace"))
        return None

    async def _generate(self, task: Task, report: Callable[[Event], None]) -> None:
        assert self._model is not None
        answer = triton_api.AnswerStream(task)
        call = self._stub.ModelStreamInfer(iter([triton_api.request(task, self._model)]), metadata=METADATA)
        try:
            async for message in call:
                for event in answer.feed(message):
                    report(event)
        except grpc.aio.AioRpcError as error:
            told = triton_api.told_error(error.code().name, error.details() or "")
            self._fail_if_dead(told)
            raise told from error
        except EngineError as error:
            self._fail_if_dead(error)
            raise
        finally:
            call.cancel()
        if not answer.ended:
            raise UnavailableError("The engine's process ended its answer too early.", code="failed")

    def _fail_if_dead(self, error: EngineError) -> None:
        if triton_api.is_dead(str(error)):
            self._fail(Cause(CauseReason.FAILED, f"The model's process has ended. {error}"))

    async def _look(self) -> None:
        before = ""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._model is None:
                continue
            await self._look_at_model(self._model.name)
            if (page := await self._metrics()) is None:
                continue
            now, usage = vllm_api.signs(page)
            if before and now != before:
                self._report(Step(cache_usage=usage))
            before = now

    async def _look_at_model(self, name: str) -> None:
        """Fail when Triton has unloaded the model, as its vLLM backend asks for when its engine is unhealthy."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            asked = pb.ModelReadyRequest(name=name)
            if not (await self._stub.ModelReady(asked, timeout=ANSWER_SECONDS)).ready:
                self._fail(Cause(CauseReason.FAILED, f"Triton no longer serves the model {name}."))

    async def _metrics(self) -> str | None:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._session.get(self._metrics_url) as response:
                text = await response.text()
                return text if response.status == 200 else None
        return None
