"""Runs many random stories on all cores; the first broken promise ends the run with its story, made as short as it is.

`SCHEDULES` is the number of stories, `SEED` replays a single one; `python -m tests.safety.run`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tests.safety.promises import Broken, Promise
from tests.safety.stories import Story, story
from tests.safety.world import World

from holdfast.domain.guards import ALL_GUARDS, Guard

SCHEDULES = 10_000
CHUNK = 25
PROGRESS_SECONDS = 5.0


@dataclass(frozen=True)
class Failure:
    """A story that breaks a promise."""

    story: Story
    broken: Broken

    def __str__(self) -> str:
        return f"{self.broken}\n{self.story}"


def play(told: Story, guards: frozenset[Guard] = ALL_GUARDS) -> tuple[Counter[str], Failure | None]:
    """Run one story; what was counted, and how it failed if it did."""
    world, failure = World(told, guards), None
    try:
        world.run()
    except Broken as broken:
        failure = Failure(told, broken)
    counts = Counter(world.promises.counts)
    counts.update(schedules=1, steps=world.steps, elections=len(world.promises.elected))
    return counts, failure


def find(seeds: Iterable[int], guards: frozenset[Guard], promises: frozenset[Promise]) -> Failure | None:
    """The first story that breaks one of these promises."""
    for seed in seeds:
        _, failure = play(story(seed), guards)
        if failure and failure.broken.promise in promises:
            return failure
    return None


def shrink(failure: Failure, guards: frozenset[Guard] = ALL_GUARDS) -> Failure:
    """Leave out what happens as long as the same promise is broken."""
    found, place = failure, 0
    while place < len(found.story.faults):
        faults = found.story.faults
        _, shorter = play(replace(found.story, faults=faults[:place] + faults[place + 1 :]), guards)
        if shorter and shorter.broken.promise is failure.broken.promise:
            found = shorter
        else:
            place += 1
    return found


def play_chunk(seeds: range) -> tuple[Counter[str], int | None]:
    """Run the stories of some seeds; the first seed that fails ends it."""
    total: Counter[str] = Counter()
    for seed in seeds:
        counts, failure = play(story(seed))
        total.update(counts)
        if failure:
            return total, seed
    return total, None


def run(schedules: int, processes: int) -> int:
    """Play the stories of seeds 0 to `schedules`; exit code."""
    started = said = time.monotonic()
    total: Counter[str] = Counter()
    chunks = [range(first, min(first + CHUNK, schedules)) for first in range(0, schedules, CHUNK)]
    with multiprocessing.Pool(processes) as pool:
        results: Iterator[tuple[Counter[str], int | None]] = pool.imap_unordered(play_chunk, chunks)
        for counts, failed in results:
            total.update(counts)
            if failed is not None:
                pool.terminate()
                return replay(failed)
            now = time.monotonic()
            if now - said >= PROGRESS_SECONDS:
                said = now
                rate = total["schedules"] / (now - started)
                print(f"{total['schedules']:>8,} of {schedules:,} schedules, {rate:,.0f} a second", flush=True)
    spent = time.monotonic() - started
    parts = ("steps", "elections", "failovers", "edits", "deletions", "creations")
    counted = ", ".join(f"{total[part]:,} {part}" for part in parts)
    print(
        f"{total['schedules']:,} schedules in {spent:.0f} s on {processes} processes: {counted}. No promise was broken."
    )
    return 0


def replay(seed: int) -> int:
    """Run one story, and tell it if it breaks a promise; exit code."""
    counts, failure = play(story(seed))
    if failure is None:
        print(f"{story(seed)}\nNo promise was broken in {counts['steps']:,} steps.")
        return 0
    print(f"\n{failure}\n\nThe least of it that breaks the same promise:\n{shrink(failure)}\n\nReplay: SEED={seed}")
    return 1


def main() -> int:
    """As asked for in the environment."""
    if seed := os.environ.get("SEED"):
        return replay(int(seed))
    return run(int(os.environ.get("SCHEDULES") or SCHEDULES), min(os.cpu_count() or 1, 8))


if __name__ == "__main__":
    sys.exit(main())
