"""One engine behind the v2 protocol, whichever way a request came: its model, its state, its answers."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import metadata as packages

from holdfast.telemetry.spans import OFF, Tracing
from holdfast_engine.errors import InvalidRequestError, UnknownModelError
from holdfast_engine.kserve import metadata
from holdfast_engine.kserve.outputs import Told, tensors
from holdfast_engine.kserve.requests import Asked, InferRequest, ask
from holdfast_engine.kserve.tensors import Tensor
from holdfast_engine.limits import check_ids
from holdfast_engine.reading import AnswerReader, NewText
from holdfast_engine.shim import Prompt, Shim

NO_STREAM = "Streams come from HTTP's generate_stream and gRPC's ModelStreamInfer: leave out `stream` here."


@dataclass(frozen=True)
class Answer:
    """An answer on its way; must be closed."""

    id: str
    asked: Asked
    reader: AnswerReader

    async def parts(self) -> AsyncIterator[tuple[list[Tensor], str | None]]:
        """Outputs and, with the last ones, the finish reason; only a stream has several. Raises EngineError."""
        prompt_ids = await self.reader.prompt_ids()
        counted, reason = 0, None
        while reason is None:
            new = await (self.reader.next() if self.asked.stream else self._whole())
            reason = new.reason
            if new.text or new.token_ids or reason:
                count = self.reader.token_count
                told = Told(new, prompt_ids, self.reader.prompt_tokens, count - counted)
                yield tensors(self.asked, told), reason
                counted, prompt_ids = count, []

    async def _whole(self) -> NewText:
        new = await self.reader.rest()
        return new._replace(text=self.asked.prepended + new.text)


@dataclass(frozen=True)
class Front:
    shim: Shim
    served_name: str
    tracing: Tracing = OFF

    def check(self, name: str, version: str = "") -> None:
        """Raise UnknownModelError unless this is the engine's model."""
        if name != self.served_name:
            raise UnknownModelError(f"The model `{name}` does not exist.", param="model")
        if version not in ("", metadata.VERSION):
            raise UnknownModelError(
                f"The model `{name}` has no version {version}, only {metadata.VERSION}.", param="model"
            )

    def begin(self, request: InferRequest, *, streams: bool = False) -> Answer:
        """Hand a request to the engine; raises EngineError when it is refused. `streams` = one may be asked for."""
        self.check(request.model, request.version)
        asked = ask(request)
        if asked.stream and not streams:
            raise InvalidRequestError(NO_STREAM, param="stream")
        check_ids(asked.wants_ids, self.shim.loaded)
        completion = asked.completion
        given = completion.prompt
        prompt = Prompt(text=given) if isinstance(given, str) else Prompt(token_ids=given)
        generation = self.shim.submit(
            completion.sampling(secrets.randbits(63)),
            prompt,
            stops=tuple(completion.stops),
            chosen=completion.chosen,
            priority=asked.priority,
            timeout=asked.timeout,
        )
        reader = AnswerReader(generation, self.shim.vocabulary, completion.stops, asked.wants_ids)
        return Answer(request.id, asked, reader)

    def live(self) -> bool:
        return self.shim.health.not_alive() is None

    def ready(self) -> bool:
        return self.shim.health.not_ready() is None

    def server(self) -> metadata.Json:
        return metadata.server(_version())

    def index(self, only_ready: bool) -> list[metadata.Json]:
        reason = self.shim.health.not_ready()
        models = metadata.index(self.served_name, reason is None, reason or "")
        return models if reason is None or not only_ready else []


def _version() -> str:
    try:
        return packages.version("holdfast")
    except packages.PackageNotFoundError:
        return "unknown"
