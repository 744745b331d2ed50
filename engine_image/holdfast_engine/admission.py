"""Who is generated for next, and who is turned away: a bounded queue in front of an engine's places. Pure.

A request's rank is the moment of its arrival, put off by its class: `high` not at all, `normal` by `ageing` seconds,
`low` by twice that. The lowest rank goes first. So a class goes before the next one, but a request that has waited
`ageing` seconds longer is as good as one of the class above it, and none waits for ever.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from holdfast_engine.limits import Limits

PROBE_PLACES = 1
"""Places beyond the engine's for users, in which observers' requests run: they wait for nobody else's."""
KEPT_DEPARTURES = 32
LONGEST_RETRY = 60
"""Seconds; longer waits are guesses."""


class Priority(StrEnum):
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


@dataclass(frozen=True, order=True)
class Candidate:
    """A request that wants a place, ordered by rank."""

    rank: float
    id: int
    priority: Priority = field(compare=False)
    probe: bool = field(compare=False, default=False)


class Admission:
    """The queue and the places. `now` is in seconds of any clock that only goes forward."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: list[Candidate] = []
        self._placed: dict[int, Candidate] = {}
        self._departures: deque[float] = deque(maxlen=KEPT_DEPARTURES)

    def add(self, id: int, priority: Priority, probe: bool, now: float) -> Candidate | None:
        """Let a request wait. The one that has to be turned away for it: itself, or one of a lower class; else None.

        Only what found no place counts as waiting, so that a queue of length 0 still fills the places.
        """
        rank = -math.inf if probe else now + self._limits.ageing * list(Priority).index(priority)
        newcomer = Candidate(rank, id, priority, probe)
        insort(self._waiting, newcomer)
        if probe or self._free_places() + self._limits.waiting >= self.waiting():
            return None
        worst = self._waiting[-1]
        self._waiting.pop()
        return worst

    def next(self) -> int | None:
        """The request that gets a free place now."""
        if not self._waiting:
            return None
        first = self._waiting[0]
        if self._free_places() + (PROBE_PLACES if first.probe else 0) <= 0:
            return None
        self._placed[first.id] = self._waiting.pop(0)
        return first.id

    def leave(self, id: int, now: float) -> None:
        """A request is over, wherever it was."""
        if self._placed.pop(id, None) is not None:
            self._departures.append(now)
        else:
            self._waiting = [each for each in self._waiting if each.id != id]

    def clear(self) -> None:
        """Nobody waits and nobody has a place."""
        self._waiting.clear()
        self._placed.clear()

    def holds_place(self, id: int) -> bool:
        return id in self._placed

    def waiting(self, priority: Priority | None = None) -> int:
        """Users' requests that wait, of one class or of all."""
        return sum(not each.probe and priority in (None, each.priority) for each in self._waiting)

    def retry_after(self) -> int:
        """Seconds until the queue, as long as it is, will have been worked off at the pace of the last departures."""
        if len(self._departures) < 2:
            return 1
        pace = (self._departures[-1] - self._departures[0]) / (len(self._departures) - 1)
        return max(1, min(LONGEST_RETRY, math.ceil(pace * self.waiting())))

    def _free_places(self) -> float:
        if self._limits.places is None:
            return math.inf
        return self._limits.places - sum(not each.probe for each in self._placed.values())
