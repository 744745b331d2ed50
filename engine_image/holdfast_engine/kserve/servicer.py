"""The v2 protocol over gRPC, with the messages and the service of Triton's own client library."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.json_format import ParseDict
from tritonclient.grpc import model_config_pb2, service_pb2_grpc
from tritonclient.grpc import service_pb2 as pb

from holdfast_engine.body import MAX_BODY_BYTES
from holdfast_engine.errors import EngineError
from holdfast_engine.kserve import messages, metadata
from holdfast_engine.kserve.front import Answer, Front
from holdfast_engine.kserve.tensors import Tensor
from holdfast_engine.tracing import of_pairs, traced, went_wrong

logger = logging.getLogger(__name__)
Context = Any  # grpc.aio.ServicerContext, which is generic over untyped messages
OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_BODY_BYTES),
    # Gateways ping often and without calls, to notice at once what a closed door does not tell.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)


async def start_grpc(front: Front, host: str, port: int) -> grpc.aio.Server:
    """A server that listens; raises RuntimeError when the port is taken."""
    server = grpc.aio.server(options=OPTIONS)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(front), server)
    server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    await server.start()
    return server


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Methods that are not here answer UNIMPLEMENTED. Cancelling a call stops what it generates."""

    def __init__(self, front: Front) -> None:
        self._front = front

    async def ServerLive(self, _: pb.ServerLiveRequest, __: Context) -> pb.ServerLiveResponse:  # noqa: N802
        return pb.ServerLiveResponse(live=self._front.live())

    async def ServerReady(self, _: pb.ServerReadyRequest, __: Context) -> pb.ServerReadyResponse:  # noqa: N802
        return pb.ServerReadyResponse(ready=self._front.ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:  # noqa: N802
        await self._check(request, context)
        return pb.ModelReadyResponse(ready=self._front.ready())

    async def ServerMetadata(self, _: pb.ServerMetadataRequest, __: Context) -> pb.ServerMetadataResponse:  # noqa: N802
        return ParseDict(self._front.server(), pb.ServerMetadataResponse())

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Context
    ) -> pb.ModelMetadataResponse:
        await self._check(request, context)
        return ParseDict(metadata.model(self._front.served_name), pb.ModelMetadataResponse())

    async def ModelConfig(  # noqa: N802
        self, request: pb.ModelConfigRequest, context: Context
    ) -> pb.ModelConfigResponse:
        await self._check(request, context)
        config = ParseDict(metadata.config(self._front.served_name), model_config_pb2.ModelConfig())
        return pb.ModelConfigResponse(config=config)

    async def RepositoryIndex(  # noqa: N802
        self, request: pb.RepositoryIndexRequest, _: Context
    ) -> pb.RepositoryIndexResponse:
        return ParseDict({"models": self._front.index(request.ready)}, pb.RepositoryIndexResponse())

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:  # noqa: N802
        try:
            with self._traced(context):
                answer = self._front.begin(messages.read_request(request))
                async with aclosing(_closing(answer)) as parts:
                    (outputs,) = [tensors async for tensors, _ in parts]
        except EngineError as error:
            await _abort(context, error)
        return messages.response(*self._names(request.id), outputs)

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> None:
        writing = asyncio.Lock()

        async def send(message: pb.ModelStreamInferResponse) -> None:
            async with writing:
                await context.write(message)

        async with asyncio.TaskGroup() as group:
            async for request in requests:
                group.create_task(self._stream(request, send, context))

    async def _stream(
        self,
        request: pb.ModelInferRequest,
        send: Callable[[pb.ModelStreamInferResponse], Awaitable[None]],
        context: Context,
    ) -> None:
        """Answer one request of a stream. Its error is its own: the stream's other requests go on."""
        try:
            with self._traced(context):
                answer = self._front.begin(messages.read_request(request), streams=True)
                async with aclosing(_closing(answer)) as parts:
                    async for tensors, reason in parts:
                        part = messages.response(*self._names(request.id), tensors, final=reason is not None)
                        await send(pb.ModelStreamInferResponse(infer_response=part))
        except EngineError as error:
            await send(messages.broken(*self._names(request.id), error))
        except Exception as error:
            logger.exception("a request failed")
            told = EngineError(f"Internal error: {type(error).__name__}")
            await send(messages.broken(*self._names(request.id), told))

    @contextmanager
    def _traced(self, context: Context) -> Iterator[None]:
        """A request as a span; each of a stream has its own."""
        headers = of_pairs(context.invocation_metadata() or ())
        with traced(self._front.tracing, "text_completion", self._front.served_name, headers) as span:
            span.set({"rpc.system": "grpc", "rpc.service": "inference.GRPCInferenceService"})
            try:
                yield
            except EngineError as error:
                went_wrong(error)
                raise

    def _names(self, id: str) -> tuple[str, str, str]:
        return self._front.served_name, metadata.VERSION, id

    async def _check(self, request: Any, context: Context) -> None:
        try:
            self._front.check(request.name, request.version)
        except EngineError as error:
            await _abort(context, error)


async def _closing(answer: Answer) -> AsyncGenerator[tuple[list[Tensor], str | None]]:
    """The answer's parts; closes it after the last one, or as soon as nobody wants more."""
    ended = "abort"
    try:
        async for tensors, reason in answer.parts():
            yield tensors, reason
            ended = reason or ended
    except EngineError:
        ended = "error"
        raise
    finally:
        answer.reader.close(ended)


async def _abort(context: Context, error: EngineError) -> NoReturn:
    if error.retry_after is not None:
        context.set_trailing_metadata((("grpc-retry-pushback-ms", str(1000 * error.retry_after)),))
    await context.abort(messages.status(error), str(error))
    raise AssertionError("abort raises")
