"""The requests of one engine, whatever engine it is: their way through it, its health, what is measured.

Lives on the event loop alone; nothing here blocks. A request is a `Generation`: what the engine reports about it
arrives in its queue, and closing it (the answer is complete, or the client is gone) stops its work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from holdfast_engine.errors import EngineError, UnavailableError
from holdfast_engine.health import Health, ProgressWatch
from holdfast_engine.metrics import EngineMetrics
from holdfast_engine.port import (
    Accepted,
    Cancelled,
    Engine,
    Event,
    Failed,
    Loaded,
    Output,
    Ready,
    Refused,
    Sampling,
    Step,
    Task,
)
from holdfast_engine.vocabulary import Vocabulary

logger = logging.getLogger(__name__)
SIGN_OF_LIFE = Sampling(max_tokens=1, temperature=0.0)


class Generation:
    """One request's way through the engine: read `prompt_ids` once, then `next` until it gives a reason."""

    def __init__(self, task: Task, on_close: Callable[[Generation, str], None], now: float) -> None:
        self.id = task.id
        self.probe = task.probe
        """Whether an observer asked for it: then it is nobody's traffic, and no metric counts it."""
        self.submitted_at = now
        self.last_token_at: float | None = None
        self.started = False
        self.news: asyncio.Queue[list[int] | Output | EngineError] = asyncio.Queue()
        self._on_close = on_close
        self._closed = False

    async def prompt_ids(self) -> list[int]:
        """The prompt's token ids once the request is accepted; raises EngineError when it is refused."""
        item = await self.news.get()
        if isinstance(item, EngineError):
            raise item
        assert isinstance(item, list)
        return item

    async def next(self) -> Output:
        """What is new, with the finish reason at the end; raises EngineError when generation failed."""
        item = await self.news.get()
        if isinstance(item, EngineError):
            raise item
        assert isinstance(item, Output)
        return item

    def close(self, reason: str) -> None:
        """The answer ended with `reason` (stop, length, abort, error); unfinished work is cancelled."""
        if not self._closed:
            self._closed = True
            self._on_close(self, reason)


class Shim:
    """An engine and the requests it works on. `progress_timeout` in seconds."""

    def __init__(self, engine: Engine, metrics: EngineMetrics, progress_timeout: float) -> None:
        self.engine = engine
        self.health = Health()
        self.vocabulary: Vocabulary | None = None
        self.max_model_len: int | None = None
        self.failed: Failed | None = None
        self.ended = asyncio.Event()
        """Set when the engine is over; then the process is of no more use."""
        self._metrics = metrics
        self._watch = ProgressWatch(progress_timeout)
        self._known: dict[int, Generation] = {}
        self._open: set[Generation] = set()
        self._next_id = 1
        self._cache_usage = 0.0
        self._watchdog: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        metrics.follow(self.running, self.waiting, lambda: self._cache_usage)

    def running(self) -> int:
        """Users' requests that the engine works on, as it has said."""
        return sum(each.started and not each.probe for each in self._known.values())

    def waiting(self) -> int:
        """Users' requests that wait for a place."""
        return sum(not each.started and not each.probe for each in self._known.values())

    async def start(self) -> None:
        """Start the engine; returns before the model is loaded."""
        await self.engine.start(self._hear)

    def submit(
        self,
        sampling: Sampling,
        *,
        text: str | None = None,
        token_ids: list[int] | None = None,
        messages: list[dict[str, str]] | None = None,
        stops: tuple[str, ...] = (),
        chosen: frozenset[str] = frozenset(),
        probe: bool = False,
    ) -> Generation:
        """Hand a request to the engine; raises UnavailableError when it is not ready."""
        if (reason := self.health.not_ready()) is not None:
            raise UnavailableError(f"The engine takes no requests: {reason}.", code=reason.value)
        generation = self._add(Task(self._next_id, sampling, text, token_ids, messages, stops, chosen, probe))
        self._open.add(generation)
        self._idle.clear()
        return generation

    async def wait_idle(self) -> None:
        """Until every answer is complete."""
        await self._idle.wait()

    def fail_all(self, error: EngineError) -> None:
        """End all open requests with `error` and cancel their work."""
        for generation in list(self._open):
            generation.news.put_nowait(error)
            self._cancel(generation)

    def _add(self, task: Task) -> Generation:
        generation = Generation(task, self._close, time.monotonic())
        self._next_id += 1
        if not self._known:
            self._watch.progress()
        self._known[generation.id] = generation
        self.engine.submit(task)
        if self._watchdog is None or self._watchdog.done():
            self._watchdog = asyncio.create_task(self._watch_progress())
        return generation

    def _cancel(self, generation: Generation) -> None:
        if generation.id in self._known and self.health.failure is None:
            self.engine.cancel(generation.id)

    def _close(self, generation: Generation, reason: str) -> None:
        if not generation.probe:
            self._metrics.request_finished(reason, time.monotonic() - generation.submitted_at)
        self._open.discard(generation)
        self._cancel(generation)
        if not self._open:
            self._idle.set()

    async def _watch_progress(self) -> None:
        """While requests are in the engine, notice when its steps stop, and when they go on.

        An engine that let go of its requests has nothing left to show progress with: it is asked for one token.
        """
        last = time.monotonic()
        while (self._known or self.health.stalled) and self.health.failure is None:
            await asyncio.sleep(self._watch.interval)
            now = time.monotonic()
            if self._watch.tick(now - last) and self._known and not self.health.stalled:
                logger.error("no generation step completed for too long: failing %d requests", len(self._open))
                self.health.stalled = True
                self.fail_all(UnavailableError("The generation loop makes no progress.", code="stalled"))
            elif self.health.stalled and not self._known:
                self._add(Task(self._next_id, SIGN_OF_LIFE, text="Hello", probe=True))
            last = now

    def _hear(self, event: Event) -> None:
        if isinstance(event, Loaded | Ready | Accepted | Step):
            self._watch.progress()
            self.health.stalled = False
        match event:
            case Loaded():
                self.vocabulary, self.max_model_len = event.vocabulary, event.max_model_len
            case Ready():
                self.health.loaded = True
                logger.info("ready: warm-up generation succeeded")
            case Accepted(id, prompt_ids):
                if (generation := self._known.get(id)) is not None:
                    generation.news.put_nowait(prompt_ids)
                    if not generation.probe:
                        self._metrics.prompt_accepted(len(prompt_ids))
            case Refused(id, error):
                if (generation := self._known.pop(id, None)) is not None:
                    generation.news.put_nowait(error)
            case Cancelled(id):
                self._known.pop(id, None)
            case Step():
                self._note(event)
            case Failed():
                self._fail(event)

    def _fail(self, failed: Failed) -> None:
        logger.error("the engine is over: %s", failed.cause)
        self.failed = failed
        self.health.failure = str(failed.cause)
        self._known.clear()
        self.fail_all(UnavailableError(f"The generation loop failed: {failed.cause}", code="failed"))
        self.ended.set()

    def _note(self, step: Step) -> None:
        now = time.monotonic()
        if step.cache_usage is not None:
            self._cache_usage = step.cache_usage
        for id in step.started:
            if (generation := self._known.get(id)) is not None:
                generation.started = True
        for output in step.outputs:
            generation = self._known.get(output.id)
            if generation is None:
                continue
            if output.token_ids and not generation.probe:
                self._measure(generation, len(output.token_ids), now)
            if output.reason is not None:
                del self._known[output.id]
            generation.news.put_nowait(output)

    def _measure(self, generation: Generation, count: int, now: float) -> None:
        since = generation.last_token_at
        first = since is None
        self._metrics.tokens_generated(
            count, first=first, seconds=now - (generation.submitted_at if since is None else since)
        )
        generation.last_token_at = now
