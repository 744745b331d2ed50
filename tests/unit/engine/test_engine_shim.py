"""The shim with an engine that only notes what it is told: requests and health follow from events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from holdfast_engine import rest
from holdfast_engine.admission import Priority
from holdfast_engine.causes import Cause, CauseReason
from holdfast_engine.errors import (
    DeadlineError,
    GenerationError,
    InvalidRequestError,
    QueueFullError,
    UnavailableError,
)
from holdfast_engine.generation import Generation
from holdfast_engine.limits import Limits
from holdfast_engine.metrics import EngineMetrics
from holdfast_engine.port import (
    Accepted,
    Cancelled,
    Event,
    Failed,
    Loaded,
    Output,
    Ready,
    Refused,
    Resting,
    Sampling,
    Step,
    Task,
)
from holdfast_engine.shim import Prompt, Shim

HI = Prompt(text="Hi")


class NotingEngine:
    def __init__(self) -> None:
        self.told: asyncio.Queue[Task] = asyncio.Queue()
        self.cancelled: list[int] = []
        self.rests: asyncio.Queue[bool] = asyncio.Queue()
        self.report: Callable[[Event], None] = lambda _: None

    async def start(self, report: Callable[[Event], None]) -> None:
        self.report = report

    def submit(self, task: Task) -> None:
        self.told.put_nowait(task)

    def cancel(self, id: int) -> None:
        self.cancelled.append(id)

    def rest(self, asleep: bool) -> None:
        self.rests.put_nowait(asleep)

    async def stop(self, at_once: bool = False) -> None: ...


class World:
    def __init__(self, progress_timeout: float = 5.0, sleep_after: float = 0.0, **limits: Any) -> None:
        self.engine = NotingEngine()
        self.metrics = EngineMetrics("tiny")
        self.shim = Shim(self.engine, self.metrics, progress_timeout, Limits(**limits), sleep_after)

    async def ready(self) -> World:
        await self.shim.start()
        self.engine.report(Loaded(100))
        self.engine.report(Ready())
        return self

    def ask(self, prompt: Prompt = HI, max_tokens: int | None = 5, **how: Any) -> Generation:
        return self.shim.submit(Sampling(max_tokens=max_tokens), prompt, **how)

    def given(self) -> list[int]:
        """The ids that the engine was given and has not been asked about."""
        return [self.engine.told.get_nowait().id for _ in range(self.engine.told.qsize())]

    def finish(self, asked: Generation) -> None:
        self.engine.report(Step([Output(asked.id, [7], "length")]))
        asked.close("length")


async def test_no_request_is_taken_before_the_engine_has_generated() -> None:
    world = World()
    await world.shim.start()
    world.engine.report(Loaded(100))
    with pytest.raises(UnavailableError, match="loading"):
        world.ask()


async def test_a_request_hears_what_the_engine_reports_of_it() -> None:
    world = await World().ready()
    asked = world.ask()
    assert (world.shim.running(), world.shim.waiting()) == (0, 1)
    world.engine.report(Accepted(asked.id, [1, 2]))
    world.engine.report(Step(outputs=[Output(asked.id, [7])]))
    assert (world.shim.running(), world.shim.waiting()) == (1, 0)
    world.engine.report(Step(outputs=[Output(asked.id, [8], "stop")]))
    assert await asked.prompt_ids() == [1, 2]
    assert await asked.next() == Output(asked.id, [7, 8], "stop")
    asked.close("stop")
    assert world.engine.cancelled == []
    await world.shim.wait_idle()


async def test_a_closed_request_is_cancelled_and_counts_until_the_engine_lets_go() -> None:
    world = await World().ready()
    asked = world.ask()
    world.engine.report(Accepted(asked.id, [1]))
    asked.close("abort")
    assert (world.engine.cancelled, world.shim.running()) == ([asked.id], 1)
    world.engine.report(Step(outputs=[Output(asked.id, [7])]))
    world.engine.report(Cancelled(asked.id))
    assert world.shim.running() == 0


async def test_a_refused_request_hears_why() -> None:
    world = await World().ready()
    asked = world.ask()
    world.engine.report(Refused(asked.id, GenerationError("no")))
    with pytest.raises(GenerationError):
        await asked.prompt_ids()
    assert world.shim.waiting() == 0


async def test_observers_are_in_no_count() -> None:
    world = await World().ready()
    probe = world.ask(probe=True)
    world.engine.report(Accepted(probe.id, [1]))
    world.engine.report(Step(outputs=[Output(probe.id, [7], "length")]))
    probe.close("length")
    assert (world.shim.running(), world.shim.waiting()) == (0, 0)
    assert 'vllm:generation_tokens_total{model_name="tiny"} 0.0' in world.metrics.render().decode()


@pytest.mark.parametrize(
    ("event", "recovers"),
    [(Step(), True), (Accepted(9, []), True), (Cancelled(9), False), (Refused(9, GenerationError("no")), False)],
    ids=lambda value: type(value).__name__,
)
async def test_only_progress_ends_a_stall(event: Event, recovers: bool) -> None:
    world = await World().ready()
    world.shim.health.stalled = True
    world.engine.report(event)
    assert world.shim.health.stalled == (not recovers)


async def test_a_stalled_engine_that_let_go_of_everything_is_asked_for_one_token() -> None:
    world = await World(progress_timeout=0.02).ready()
    asked = world.ask()
    with pytest.raises(UnavailableError, match="no progress"):
        await asyncio.wait_for(asked.prompt_ids(), 10)
    assert world.engine.cancelled == [asked.id]
    asked.close("error")
    world.engine.report(Cancelled(asked.id))
    assert (await world.engine.told.get()).id == asked.id
    sign = await asyncio.wait_for(world.engine.told.get(), 10)
    assert (sign.probe, sign.sampling.max_tokens, world.shim.health.stalled) == (True, 1, True)
    world.engine.report(Step(outputs=[Output(sign.id, [3], "length")]))
    assert world.shim.health.not_ready() is None


async def test_a_failed_engine_fails_its_requests_and_is_told_nothing_more() -> None:
    world = await World().ready()
    asked = world.ask()
    failed = Failed(Cause(CauseReason.CUDA_ERROR, "an illegal memory access"), 3)
    world.engine.report(failed)
    with pytest.raises(UnavailableError, match="illegal memory access"):
        await asked.prompt_ids()
    asked.close("error")
    assert (world.shim.failed, world.engine.cancelled) == (failed, [])
    assert world.shim.ended.is_set()
    assert world.shim.health.not_alive() == "failed"


async def test_no_more_than_the_places_are_given_to_the_engine_and_the_next_follows_at_once() -> None:
    world = await World(places=2).ready()
    first, second, third = world.ask(), world.ask(), world.ask()
    assert world.given() == [first.id, second.id]
    assert world.shim.waiting() == 3
    world.finish(second)
    assert world.given() == [third.id]


async def test_a_place_is_free_only_when_the_engine_has_let_go() -> None:
    world = await World(places=1).ready()
    first, second = world.ask(), world.ask()
    first.close("abort")
    assert world.given() == [first.id]
    world.engine.report(Cancelled(first.id))
    assert world.given() == [second.id]


async def test_one_that_leaves_the_queue_is_never_given() -> None:
    world = await World(places=1).ready()
    first, second, third = world.ask(), world.ask(), world.ask()
    second.close("abort")
    world.finish(first)
    assert world.given() == [first.id, third.id]
    assert world.engine.cancelled == []


async def test_beyond_the_queue_the_lowest_class_hears_when_to_come_again() -> None:
    world = await World(places=1, waiting=1).ready()
    world.ask()
    low = world.ask(priority=Priority.LOW)
    high = world.ask(priority=Priority.HIGH)
    with pytest.raises(QueueFullError) as evicted:
        await low.prompt_ids()
    low.close("error")
    assert evicted.value.retry_after == 1
    with pytest.raises(QueueFullError):
        world.ask()
    assert world.shim.waiting() == 2
    page = world.metrics.render().decode()
    for priority in ("low", "normal"):
        assert f'refused_total{{model_name="tiny",priority="{priority}",reason="queue_full"}} 1.0' in page
    high.close("abort")


async def test_one_whose_time_is_over_is_never_started() -> None:
    world = await World(places=1).ready()
    first = world.ask(timeout=0.01)
    late = world.ask(timeout=0.01)
    with pytest.raises(DeadlineError, match=r"0\.01 s"):
        await asyncio.wait_for(late.prompt_ids(), 10)
    late.close("error")
    world.engine.report(Accepted(first.id, [1]))
    assert await first.prompt_ids() == [1]
    world.finish(first)
    assert world.given() == [first.id]


async def test_a_prompt_that_turns_out_too_long_is_refused_and_cancelled() -> None:
    world = await World(prompt_tokens=2).ready()
    asked = world.ask()
    world.engine.report(Accepted(asked.id, [1, 2, 3]))
    with pytest.raises(InvalidRequestError, match="at most 2 tokens"):
        await asked.prompt_ids()
    assert world.engine.cancelled == [asked.id]
    with pytest.raises(InvalidRequestError, match="at most 2 tokens"):
        world.ask(Prompt(token_ids=[1, 2, 3]))


async def test_a_stall_fails_those_that_wait_too() -> None:
    world = await World(progress_timeout=0.02, places=1).ready()
    asked = [world.ask(), world.ask()]
    for each in asked:
        with pytest.raises(UnavailableError, match="no progress"):
            await asyncio.wait_for(each.prompt_ids(), 10)
        each.close("error")
    assert world.shim.waiting() == 1


async def told_to_rest(world: World, asleep: bool) -> None:
    assert await asyncio.wait_for(world.engine.rests.get(), 10) is asleep


async def test_an_idle_engine_falls_asleep_and_the_next_request_wakes_it() -> None:
    world = await World(sleep_after=0.01).ready()
    await told_to_rest(world, True)
    world.engine.report(Resting(True))
    assert world.shim.progress().state == "asleep"
    assert world.shim.health.not_ready() is None
    asked = world.ask()
    await told_to_rest(world, False)
    assert (world.given(), world.shim.progress().state) == ([], "waking")
    world.engine.report(Resting(False))
    assert world.given() == [asked.id]
    world.finish(asked)
    await told_to_rest(world, True)


async def test_a_request_that_comes_while_it_falls_asleep_wakes_it() -> None:
    world = await World(sleep_after=0.01).ready()
    await told_to_rest(world, True)
    asked = world.ask()
    assert world.engine.rests.empty()
    world.engine.report(Resting(True))
    await told_to_rest(world, False)
    world.engine.report(Resting(False))
    assert world.given() == [asked.id]


async def test_an_engine_with_a_request_does_not_fall_asleep() -> None:
    world = await World(sleep_after=0.01).ready()
    world.ask()
    await asyncio.sleep(0.05)
    assert world.engine.rests.empty()


async def test_an_engine_that_does_not_awake_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "LONGEST", 0.02)
    world = await World(sleep_after=0.01).ready()
    await told_to_rest(world, True)
    asked = world.ask()
    with pytest.raises(UnavailableError, match="falling asleep for"):
        await asyncio.wait_for(asked.prompt_ids(), 10)
    assert world.shim.ended.is_set()


async def test_progress_tells_what_health_is_judged_by() -> None:
    world = await World(places=1).ready()
    first, _ = world.ask(), world.ask()
    before = world.shim.progress()
    assert (before.tokens_generated, before.seconds_since_last_token) == (0, None)
    assert (before.requests_in_flight, before.requests_waiting) == (1, 1)
    world.engine.report(Step([Output(first.id, [7, 8])]))
    after = world.shim.progress()
    assert after.tokens_generated == 2
    assert after.seconds_since_last_token is not None
