"""The requests of one engine, whatever engine it is: their way through it, its health, what is measured.

Lives on the event loop alone; nothing here blocks. A request waits in the admission's queue, is handed to the engine
when a place is free, and holds the place until the engine has let go of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from holdfast_engine.admission import Admission, Candidate, Priority
from holdfast_engine.causes import Cause, CauseReason
from holdfast_engine.errors import DeadlineError, EngineError, QueueFullError, UnavailableError
from holdfast_engine.generation import Generation
from holdfast_engine.health import Health
from holdfast_engine.limits import Limits, check_logprobs
from holdfast_engine.metrics import EngineMetrics
from holdfast_engine.port import (
    Accepted,
    Cancelled,
    Engine,
    Event,
    Failed,
    Loaded,
    Ready,
    Refused,
    Resting,
    Sampling,
    Step,
    Task,
)
from holdfast_engine.rest import Rest
from holdfast_engine.tracing import trace_headers
from holdfast_engine.vocabulary import Vocabulary
from holdfast_engine.watchdog import Watchdog

logger = logging.getLogger(__name__)
SIGN_OF_LIFE = Sampling(max_tokens=1, temperature=0.0)


@dataclass(frozen=True)
class Prompt:
    """What is to be continued: exactly one of the three."""

    text: str | None = None
    token_ids: list[int] | None = None
    messages: list[dict[str, str]] | None = None


@dataclass(frozen=True)
class Progress:
    """`state`: awake, falling asleep, asleep or waking; or why it takes none: loading, draining, stalled, failed."""

    state: str
    tokens_generated: int
    """Since the start."""
    requests_in_flight: int
    """Those that the engine works on, or has been given."""
    requests_waiting: int
    seconds_since_last_token: float | None


class Shim:
    """An engine and the requests it works on. `progress_timeout` and `sleep_after` in seconds; 0 = it never sleeps."""

    def __init__(
        self,
        engine: Engine,
        metrics: EngineMetrics,
        progress_timeout: float,
        limits: Limits | None = None,
        sleep_after: float = 0.0,
    ) -> None:
        self.engine = engine
        self.health = Health()
        self.limits = limits or Limits()
        self.loaded = Loaded(None)
        """What the engine said when the model was in memory."""
        self.failed: Failed | None = None
        self.ended = asyncio.Event()
        """Set when the engine is over; then the process is of no more use."""
        self.rest = Rest(sleep_after, engine.rest, self._stuck)
        self.tokens_generated = 0
        self.last_token_at: float | None = None
        self._metrics = metrics
        self._watchdog = Watchdog(progress_timeout, self.health, self)
        self._admission = Admission(self.limits)
        self._open: dict[int, Generation] = {}
        """Those whose answer is not complete."""
        self._known: dict[int, Generation] = {}
        """Those that the engine has been given and has not let go of."""
        self._next_id = 1
        self._cache_usage = 0.0
        self._idle = asyncio.Event()
        self._idle.set()
        metrics.follow(self.running, self.waiting, self._admission.waiting, lambda: self._cache_usage)

    @property
    def vocabulary(self) -> Vocabulary | None:
        return self.loaded.vocabulary

    @property
    def max_model_len(self) -> int | None:
        return self.loaded.max_model_len

    def progress(self) -> Progress:
        """How far the engine has come, users' requests and observers' alike."""
        waiting = self._admission.waiting()
        since = None if self.last_token_at is None else round(time.monotonic() - self.last_token_at, 3)
        reason = self.health.not_ready()
        state = str(self.rest.state if reason is None else reason)
        return Progress(state, self.tokens_generated, len(self._known), waiting, since)

    def running(self) -> int:
        """Users' requests that the engine works on, as it has said."""
        return sum(each.started and not each.probe for each in self._known.values())

    def waiting(self) -> int:
        """Users' requests that wait for a place, or for the engine to begin with them."""
        begun = sum(not each.started and not each.probe for each in self._known.values())
        return self._admission.waiting() + begun

    async def start(self) -> None:
        """Start the engine; returns before the model is loaded."""
        await self.engine.start(self._hear)

    def submit(
        self,
        sampling: Sampling,
        prompt: Prompt,
        *,
        stops: tuple[str, ...] = (),
        chosen: frozenset[str] = frozenset(),
        priority: Priority = Priority.NORMAL,
        timeout: float | None = None,
        probe: bool = False,
    ) -> Generation:
        """Let a request wait for its place, at most `timeout` seconds.

        Raises UnavailableError when the engine takes none, QueueFullError when too many wait, InvalidRequestError when
        it asks for more than the limits allow or the engine can do.
        """
        if (reason := self.health.not_ready()) is not None:
            raise UnavailableError(
                f"The engine takes no requests: {reason}.", code=reason.value, leaving=self.health.draining
            )
        sampling = self.limits.bounded(sampling)
        check_logprobs(sampling, self.loaded)
        if prompt.token_ids is not None and (error := self.limits.refusal_of_prompt(len(prompt.token_ids))):
            raise error
        given = (prompt.text, prompt.token_ids, prompt.messages)
        task = Task(self._next_id, sampling, *given, stops, chosen, probe, trace_headers())
        generation = self._new(task, priority)
        self._open[generation.id] = generation
        self._idle.clear()
        turned_away = self._admission.add(generation.id, priority, probe, generation.submitted_at)
        if turned_away is not None:
            self._turn_away(turned_away, generation)
        if timeout is not None:
            loop = asyncio.get_running_loop()
            generation.expiry = loop.call_later(timeout, self._expire, generation, priority, timeout)
        self._hand_over()
        return generation

    async def wait_idle(self) -> None:
        """Until every answer is complete."""
        await self._idle.wait()

    def fail_all(self, error: EngineError) -> None:
        """End all open requests with `error` and cancel their work."""
        for generation in list(self._open.values()):
            generation.tell(error)
            self._let_go(generation)

    def _turn_away(self, candidate: Candidate, newcomer: Generation) -> None:
        """Tell the one that there is no room for; raises QueueFullError when that is the newcomer."""
        self._metrics.refused("queue_full", candidate.priority)
        refusal = QueueFullError(self._admission.waiting(), self._admission.retry_after())
        generation = self._open[candidate.id]
        if generation is newcomer:
            self._forget(newcomer)
            raise refusal
        generation.cancel_expiry()
        generation.tell(refusal)

    def _new(self, task: Task, priority: Priority = Priority.NORMAL) -> Generation:
        self._next_id += 1
        return Generation(task, self._close, time.monotonic(), priority)

    def _hand_over(self) -> None:
        """Give the engine what has a place; waking it first where it sleeps."""
        if self._open and not self.rest.awake():
            return
        while (id := self._admission.next()) is not None:
            self._give(self._open[id])

    def _give(self, generation: Generation) -> None:
        self._watchdog.begin(first=not self._known)
        self._known[generation.id] = generation
        generation.timeline.given_at = time.monotonic()
        self.engine.submit(generation.task)

    def _expire(self, generation: Generation, priority: Priority, timeout: float) -> None:
        if generation.id in self._open and not self._admission.holds_place(generation.id):
            self._metrics.refused("deadline", priority)
            self._admission.leave(generation.id, time.monotonic())
            generation.tell(DeadlineError(timeout))

    def _let_go(self, generation: Generation) -> None:
        """Stop its work, or its waiting; a place is free only once the engine says so."""
        if generation.id not in self._known:
            self._admission.leave(generation.id, time.monotonic())
        elif self.health.failure is None:
            self.engine.cancel(generation.id)

    def _left(self, id: int) -> Generation | None:
        """The engine works on it no longer."""
        generation = self._known.pop(id, None)
        if generation is not None:
            self._admission.leave(id, time.monotonic())
            self._hand_over()
        return generation

    def _close(self, generation: Generation, reason: str) -> None:
        if not generation.probe:
            self._metrics.request_finished(reason, time.monotonic() - generation.submitted_at)
        generation.timeline.end(reason, generation.prompt_tokens)
        self._let_go(generation)
        self._forget(generation)

    def _forget(self, generation: Generation) -> None:
        generation.cancel_expiry()
        self._open.pop(generation.id, None)
        if not self._open:
            self._idle.set()
            self.rest.idle()

    def has_work(self) -> bool:
        """Whether the engine has requests that it has not let go of."""
        return bool(self._known)

    def stalled(self) -> None:
        """The engine makes no progress: nobody is to wait for it."""
        self.fail_all(UnavailableError("The generation loop makes no progress.", code="stalled"))

    def ask_for_a_sign(self) -> None:
        """Give the engine a request of the shim's own."""
        self._give(self._new(Task(self._next_id, SIGN_OF_LIFE, text="Hello", probe=True)))

    def _hear(self, event: Event) -> None:
        if isinstance(event, Loaded | Ready | Accepted | Step):
            self._watchdog.progress()
        match event:
            case Loaded():
                self.loaded = event
            case Ready():
                self.health.loaded = True
                self.rest.idle()
                logger.info("ready: warm-up generation succeeded")
            case Accepted():
                self._accept(event)
            case Refused(id, error):
                if (generation := self._left(id)) is not None:
                    generation.tell(error)
            case Cancelled(id):
                self._left(id)
            case Step():
                self._note(event)
            case Resting(asleep):
                self.rest.done(asleep, wanted=bool(self._open))
                self._hand_over()
            case Failed():
                self._fail(event)

    def _accept(self, accepted: Accepted) -> None:
        if (generation := self._known.get(accepted.id)) is None:
            return
        generation.started, generation.prompt_tokens = True, accepted.tokens
        if (error := self.limits.refusal_of_prompt(accepted.tokens)) is not None and not generation.probe:
            generation.tell(error)
            self.engine.cancel(accepted.id)
            return
        generation.tell(accepted.prompt_ids)
        if not generation.probe:
            self._metrics.prompt_accepted(accepted.tokens)

    def _stuck(self, what: str) -> None:
        self._hear(Failed(Cause(CauseReason.FAILED, what)))

    def _fail(self, failed: Failed) -> None:
        logger.error("the engine is over: %s", failed.cause)
        self.failed = failed
        self.health.failure = str(failed.cause)
        self._known.clear()
        self._admission.clear()
        self.fail_all(UnavailableError(f"The generation loop failed: {failed.cause}", code="failed"))
        self.ended.set()

    def _note(self, step: Step) -> None:
        now = time.monotonic()
        if step.cache_usage is not None:
            self._cache_usage = step.cache_usage
        if step.prefix_cache is not None:
            self._metrics.prefix_cache(*step.prefix_cache)
        for output in step.outputs:
            generation = self._known.get(output.id)
            if generation is None:
                continue
            if output.tokens:
                self._measure(generation, output.tokens, now)
            generation.tell(output)
            if output.reason is not None:
                self._left(output.id)

    def _measure(self, generation: Generation, count: int, now: float) -> None:
        self.tokens_generated += count
        self.last_token_at = now
        since = generation.last_token_at
        generation.last_token_at = now
        generation.timeline.generated(count, now)
        if not generation.probe:
            seconds = now - (generation.submitted_at if since is None else since)
            self._metrics.tokens_generated(count, first=since is None, seconds=seconds)
