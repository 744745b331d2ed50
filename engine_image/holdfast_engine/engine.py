"""The HTTP process's side of the engine: starts the pipeline process, follows its reports, judges health.

Lives on the event loop alone; nothing here blocks. A request is a `Generation`: what the pipeline process
says about it arrives in its queue, and closing it (the answer is complete, or the client is gone) stops its
work.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from holdfast_engine import wire
from holdfast_engine.errors import EngineError, GenerationError, UnavailableError, refusal
from holdfast_engine.health import Health, ProgressWatch
from holdfast_engine.metrics import EngineMetrics
from holdfast_engine.vocabulary import Vocabulary

logger = logging.getLogger(__name__)
EXIT_SECONDS = 1.0
IGNORED = "The request does not fit the engine's KV cache."


class Generation:
    """One request's way through the engine: read `prompt_ids` once, then `next` until it gives a reason."""

    def __init__(
        self, id: int, on_close: Callable[[Generation, str], None], now: float, *, probe: bool = False
    ) -> None:
        self.id = id
        self.probe = probe
        """Whether an observer asked for it: then it is nobody's traffic, and no metric counts it."""
        self.submitted_at = now
        self.last_token_at: float | None = None
        self.started = False
        self.news: asyncio.Queue[list[int] | tuple[list[int], str | None] | EngineError] = asyncio.Queue()
        self._on_close = on_close
        self._closed = False

    async def prompt_ids(self) -> list[int]:
        """The prompt's token ids once the request is accepted; raises EngineError when it is refused."""
        item = await self.news.get()
        if isinstance(item, EngineError):
            raise item
        assert isinstance(item, list)
        return item

    async def next(self) -> tuple[list[int], str | None]:
        """New token ids, and the finish reason with the last; raises EngineError when generation failed."""
        item = await self.news.get()
        if isinstance(item, EngineError):
            raise item
        assert isinstance(item, tuple)
        return item

    def close(self, reason: str) -> None:
        """The answer ended with `reason` (stop, length, abort, error); unfinished work is cancelled."""
        if not self._closed:
            self._closed = True
            self._on_close(self, reason)


class Engine:
    """The pipeline process and the requests it works on. `progress_timeout` in seconds."""

    def __init__(self, config: wire.WorkerConfig, metrics: EngineMetrics, progress_timeout: float) -> None:
        self.health = Health()
        self.vocabulary: Vocabulary | None = None
        self.max_model_len: int | None = None
        self._config = config
        self._metrics = metrics
        self._watch = ProgressWatch(progress_timeout)
        self._known: dict[int, Generation] = {}
        self._open: set[Generation] = set()
        self._next_id = 1
        self._cache_usage = 0.0
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._follower: asyncio.Task[None] | None = None
        self._watchdog: asyncio.Task[None] | None = None
        self.ended = asyncio.Event()
        """Set when the generation loop is over; then the process is of no more use."""
        self._idle = asyncio.Event()
        self._idle.set()
        metrics.follow(self.running, self.waiting, lambda: self._cache_usage)

    def running(self) -> int:
        """Users' requests that the pipeline works on, as the pipeline process has said."""
        return sum(each.started and not each.probe for each in self._known.values())

    def waiting(self) -> int:
        """Users' requests that wait for a place."""
        return sum(not each.started and not each.probe for each in self._known.values())

    async def start(self, model: str) -> None:
        """Start the pipeline process with the model's file; returns before it is loaded."""
        ours, theirs = socket.socketpair()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "holdfast_engine.worker"),
            *(str(theirs.fileno()), json.dumps(asdict(replace(self._config, model=model)))),
            pass_fds=[theirs.fileno()],
            stdin=asyncio.subprocess.DEVNULL,
        )
        theirs.close()
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._follower = asyncio.create_task(self._follow(reader))

    def kill(self) -> None:
        """End the pipeline process at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def submit(
        self,
        sampling: wire.Sampling,
        *,
        text: str | None = None,
        token_ids: list[int] | None = None,
        messages: list[dict[str, str]] | None = None,
        probe: bool = False,
    ) -> Generation:
        """Hand a request to the pipeline; raises UnavailableError when the engine is not ready."""
        if (reason := self.health.not_ready()) is not None:
            raise UnavailableError(f"The engine takes no requests: {reason}.", code=reason.value)
        generation = Generation(self._next_id, self._close, time.monotonic(), probe=probe)
        self._next_id += 1
        if not self._known:
            self._watch.progress()
        self._known[generation.id] = generation
        self._open.add(generation)
        self._idle.clear()
        self._send(wire.Add(generation.id, asdict(sampling), text, token_ids, messages, probe))
        if self._watchdog is None or self._watchdog.done():
            self._watchdog = asyncio.create_task(self._watch_progress())
        return generation

    async def wait_idle(self) -> None:
        """Until every answer is complete."""
        await self._idle.wait()

    def fail_all(self, error: EngineError) -> None:
        """End all open requests with `error` and cancel their work."""
        for generation in list(self._open):
            generation.news.put_nowait(error)
            if generation.id in self._known:
                self._send(wire.Cancel(generation.id))

    def _send(self, message: wire.Message) -> None:
        if self._writer is not None and self.health.failure is None:
            self._writer.write(wire.encode(message))

    def _close(self, generation: Generation, reason: str) -> None:
        if not generation.probe:
            self._metrics.request_finished(reason, time.monotonic() - generation.submitted_at)
        self._open.discard(generation)
        if generation.id in self._known:
            self._send(wire.Cancel(generation.id))
        if not self._open:
            self._idle.set()

    async def _watch_progress(self) -> None:
        """While requests are in the pipeline, notice when its steps stop."""
        last = time.monotonic()
        while self._known and self.health.failure is None:
            await asyncio.sleep(self._watch.interval)
            now = time.monotonic()
            if self._watch.tick(now - last) and self._known and not self.health.stalled:
                logger.error("no generation step completed for too long: failing %d requests", len(self._open))
                self.health.stalled = True
                self.fail_all(UnavailableError("The generation loop makes no progress.", code="stalled"))
            last = now

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        failure = None
        while (message := await wire.read_message(reader)) is not None:
            self._watch.progress()
            self.health.stalled = False
            match message:
                case wire.Loaded():
                    self.vocabulary = Vocabulary(message.pieces, message.control, message.kind)
                    self.max_model_len = message.max_model_len
                case wire.Ready():
                    self.health.loaded = True
                    logger.info("ready: warm-up generation succeeded")
                case wire.Accepted(id, prompt_ids):
                    if (generation := self._known.get(id)) is not None and not generation.probe:
                        self._metrics.prompt_accepted(len(prompt_ids))
                    self._tell(id, prompt_ids)
                case wire.Rejected(id, status, code, text):
                    self._tell(id, refusal(status, code, text))
                    self._known.pop(id, None)
                case wire.Progress():
                    self._note(message)
                case wire.Failed(text):
                    failure = text
        self.fail(failure or f"the pipeline process ended with code {await self._exit_code()}")

    async def _exit_code(self) -> int | None:
        """The pipeline process's, once it has closed its end; None when it does not end."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), EXIT_SECONDS)
        return self._process.returncode

    def fail(self, failure: str) -> None:
        """The generation loop is over, or cannot begin."""
        logger.error("the generation loop is over: %s", failure)
        self.health.failure = failure
        self._known.clear()
        self.fail_all(UnavailableError(f"The generation loop failed: {failure}", code="failed"))
        self.ended.set()

    def _tell(self, id: int, item: list[int] | tuple[list[int], str | None] | EngineError) -> None:
        if (generation := self._known.get(id)) is not None:
            generation.news.put_nowait(item)

    def _note(self, progress: wire.Progress) -> None:
        now = time.monotonic()
        if progress.cache_usage is not None:
            self._cache_usage = progress.cache_usage
        for id in progress.started:
            if (generation := self._known.get(id)) is not None:
                generation.started = True
        for id, tokens, reason in progress.outputs:
            generation = self._known.get(id)
            if generation is None:
                continue
            if tokens and not generation.probe:
                self._measure(generation, len(tokens), now)
            if reason is not None:
                del self._known[id]
            if reason == "ignored":
                generation.news.put_nowait(GenerationError(IGNORED, code="kv_cache_too_small"))
            elif reason != "cancelled":
                generation.news.put_nowait((tokens, reason))

    def _measure(self, generation: Generation, count: int, now: float) -> None:
        since = generation.last_token_at
        first = since is None
        self._metrics.tokens_generated(
            count, first=first, seconds=now - (generation.submitted_at if since is None else since)
        )
        generation.last_token_at = now
