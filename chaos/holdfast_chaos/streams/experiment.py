"""Streams through an edge while one region after the other is killed, frozen and cut off.

First every question is asked undisturbed; then all streams' answers are compared with those. A fault happens to the
region that generates most streams, is healed after a while, and the next one comes once the region is well again.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from holdfast_chaos.errors import LoadError
from holdfast_chaos.streams.client import Ended, Question, Streams, questions
from holdfast_chaos.streams.compare import Received, compare

BEFORE_SECONDS = 4.0
"""Between two faults, and before the first."""
LASTS_SECONDS = 8.0
"""From a fault to its healing."""
REFERENCE_IN_FLIGHT = 6


class Regions(Protocol):
    """What can be done to regions; a `Testbed` is one."""

    def fault(self, kind: str, region: str) -> None: ...
    def heal(self, region: str) -> None: ...


@dataclass(frozen=True)
class Options:
    streams: int
    in_flight: int
    faults: Sequence[str]
    seed: int = 0


@dataclass(frozen=True)
class Fault:
    """One fault. Times of `time.monotonic()`."""

    kind: str
    region: str
    at: float
    healed: float


@dataclass
class Outcome:
    """Everything that was seen."""

    undisturbed: dict[Question, Received] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


Say = Callable[[str], None]


async def run(streams: Streams, regions: Regions, options: Options, say: Say) -> Outcome:
    """Ask, disturb, and ask until enough streams have ended; raises LoadError if the undisturbed answers fail."""
    outcome = Outcome()
    asked = questions(options.seed)
    say(f"asking {len(asked)} questions undisturbed")
    await _undisturbed(streams, asked, outcome)
    enough = asyncio.Event()

    def tell(ended: Ended) -> None:
        outcome.ended.append(ended)
        difference = compare(ended.received, outcome.undisturbed[ended.question])
        if not difference.exact:
            say(f"not exact: {ended.question}: {difference}, generated in {ended.received.regions}")
        if len(outcome.ended) % 100 == 0:
            say(f"{len(outcome.ended)} of {options.streams} streams have ended")

    disturbing = asyncio.create_task(_disturb(streams, regions, options, outcome, enough, say))
    await streams.keep(_plan(asked, options.streams), options.in_flight, tell)
    enough.set()
    await disturbing
    return outcome


async def _undisturbed(streams: Streams, asked: Sequence[Question], outcome: Outcome) -> None:
    def tell(ended: Ended) -> None:
        got = ended.received
        if got.error or not got.done or got.resumed_after or got.completion_tokens != ended.question.tokens:
            raise LoadError(f"An undisturbed stream failed: {got.error or got}")
        outcome.undisturbed[ended.question] = got

    try:
        await streams.keep(iter(asked), REFERENCE_IN_FLIGHT, tell)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


def _plan(asked: Sequence[Question], count: int) -> Iterator[Question]:
    return itertools.islice(itertools.cycle(asked), count)


async def _disturb(
    streams: Streams, regions: Regions, options: Options, outcome: Outcome, enough: asyncio.Event, say: Say
) -> None:
    for kind in itertools.cycle(options.faults):
        if await _over(enough, BEFORE_SECONDS):
            return
        if (region := streams.busiest()) is None:
            continue
        at = time.monotonic()
        say(f"{kind} {region}")
        await asyncio.to_thread(regions.fault, kind, region)
        await _over(enough, LASTS_SECONDS)
        say(f"healing {region}")
        await asyncio.to_thread(regions.heal, region)
        outcome.faults.append(Fault(kind, region, at, time.monotonic()))


async def _over(enough: asyncio.Event, seconds: float) -> bool:
    """Wait so long, or until enough streams have ended: whether they have."""
    try:
        await asyncio.wait_for(enough.wait(), seconds)
    except TimeoutError:
        return False
    return True
