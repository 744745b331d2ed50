"""The shim with an engine that only notes what it is told: requests and health follow from events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from holdfast_engine.causes import Cause, CauseReason
from holdfast_engine.errors import GenerationError, UnavailableError
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
    Sampling,
    Step,
    Task,
)
from holdfast_engine.shim import Generation, Shim


class NotingEngine:
    def __init__(self) -> None:
        self.told: asyncio.Queue[Task] = asyncio.Queue()
        self.cancelled: list[int] = []
        self.report: Callable[[Event], None] = lambda _: None

    async def start(self, report: Callable[[Event], None]) -> None:
        self.report = report

    def submit(self, task: Task) -> None:
        self.told.put_nowait(task)

    def cancel(self, id: int) -> None:
        self.cancelled.append(id)

    async def stop(self) -> None: ...

    def kill(self) -> None: ...


class World:
    def __init__(self, progress_timeout: float = 5.0) -> None:
        self.engine = NotingEngine()
        self.shim = Shim(self.engine, EngineMetrics("tiny"), progress_timeout)

    async def ready(self) -> World:
        await self.shim.start()
        self.engine.report(Loaded(100))
        self.engine.report(Ready())
        return self

    def ask(self, probe: bool = False) -> Generation:
        return self.shim.submit(Sampling(max_tokens=5), text="Hi", probe=probe)


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
    world.engine.report(Step(started=[asked.id], outputs=[Output(asked.id, [7])]))
    assert (world.shim.running(), world.shim.waiting()) == (1, 0)
    world.engine.report(Step(outputs=[Output(asked.id, [8], "stop")]))
    assert await asked.prompt_ids() == [1, 2]
    assert [await asked.next(), await asked.next()] == [Output(asked.id, [7]), Output(asked.id, [8], "stop")]
    asked.close("stop")
    assert world.engine.cancelled == []
    await world.shim.wait_idle()


async def test_a_closed_request_is_cancelled_and_counts_until_the_engine_lets_go() -> None:
    world = await World().ready()
    asked = world.ask()
    world.engine.report(Step(started=[asked.id]))
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
    world.engine.report(Step(started=[probe.id], outputs=[Output(probe.id, [7], "length")]))
    probe.close("length")
    assert (world.shim.running(), world.shim.waiting()) == (0, 0)
    assert 'vllm:generation_tokens_total{model_name="tiny"} 0.0' in world.shim._metrics.render().decode()


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
