"""Decides in advance what the load sends and when. Pure: the same seed gives the same schedule.

Time is cut into slots of 1/rate seconds; each holds one arrival at a random moment, so the rate is exact over any
whole second and arrivals still come in pairs and gaps. Of every ten arrivals in a row one is long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

BLOCK = 10
"""Arrivals of which one is long."""
SHORT_TOKENS = (1, 12)
LONG_TOKENS = (60, 80)
"""With an engine that makes 50 tokens a second for each request, more than a second."""
STREAM_TOKENS = (200, 300)
SUBJECTS = ("a lighthouse", "two rivers", "the night train", "an old map", "a paper boat", "the last harbour")


@dataclass(frozen=True)
class Arrival:
    """One request to come."""

    at: float
    """Seconds after the load's start."""
    tokens: int
    prompt: str


def plan_arrivals(rate: float, seconds: float, seed: int) -> tuple[Arrival, ...]:
    """All requests of a load of `rate` requests a second, in order."""
    random = Random(f"requests {seed}")
    planned: list[Arrival] = []
    long_place = 0
    for number in range(round(rate * seconds)):
        if number % BLOCK == 0:
            long_place = random.randrange(BLOCK)
        at = (number + random.random()) / rate
        bounds = LONG_TOKENS if number % BLOCK == long_place else SHORT_TOKENS
        planned.append(Arrival(at, random.randint(*bounds), prompt(random, number)))
    return tuple(planned)


def stream_plan(seed: int, slot: int) -> Iterator[tuple[int, str]]:
    """Tokens and prompt of the streams that one slot holds, one after the other, without end."""
    random = Random(f"streams {seed} {slot}")
    number = 0
    while True:
        yield random.randint(*STREAM_TOKENS), prompt(random, number)
        number += 1


def prompt(random: Random, number: int) -> str:
    """A short prompt; its number at the start keeps an engine from answering it out of its prefix cache."""
    return f"{number}. Tell me about {random.choice(SUBJECTS)}."
