"""Runs a load and meanwhile lets faults happen, one after the other, each to the region that serves most then.

A fault acts in a thread, so that a slow one holds up neither the load nor the display. Whatever ends the
experiment, a fault that was asked for is healed before it returns.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from .errors import LoadError
from .load_process import LoadProcess
from .measure import Fault, busiest_region

TICK_SECONDS = 0.05

Watch = Callable[[float], None]
"""Called again and again with the load's elapsed seconds, to show how it goes."""
Say = Callable[[str], None]


class Regions(Protocol):
    """What can be done to regions; a `Testbed` is one."""

    def fault(self, kind: str, region: str) -> None:
        """Let it happen, now; returns when it has."""

    def heal(self, region: str) -> None:
        """Undo all faults of a region and wait until it is well."""


@dataclass(frozen=True)
class Plan:
    """What shall happen. Times in seconds."""

    kinds: Sequence[str]
    """Faults, one after the other."""
    first: float
    """From the load's start to the first fault."""
    lasts: float
    """From a fault to its healing."""
    pause: float = 0.0
    """From the moment a region is well again to the next fault."""
    again: bool = False
    """Whether the faults are repeated for as long as the load has time for one."""


class Injection:
    """One fault: injected, healed, and timed on `time.monotonic()`. Leaving it heals if that was not done."""

    def __init__(self, regions: Regions, kind: str, say: Say) -> None:
        self.region: str | None = None
        self.asked = self.done = self.heal_asked = self.heal_done = 0.0
        self._regions = regions
        self._kind = kind
        self._say = say
        self._thread = ThreadPoolExecutor(1)
        self._acts: list[Future[None]] = []

    def __enter__(self) -> Injection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.region is not None and not self.healing:
            self._say(f"healing {self.region}")
            self.heal()
        self._thread.shutdown(wait=True)
        if error is None:
            self.check()
        elif self._acts and (failure := self._acts[-1].exception()):
            self._say(f"healing {self.region} failed: {failure}")

    @property
    def over(self) -> bool:
        """Whether the region is healed."""
        return self.healing and self._acts[-1].done()

    @property
    def healing(self) -> bool:
        """Whether healing was asked for."""
        return len(self._acts) == 2

    def inject(self, region: str) -> None:
        """Begin the fault."""
        self.region = region
        self._acts.append(self._thread.submit(self._inject, region))

    def heal(self) -> None:
        """Begin to heal, once the fault has been done."""
        assert self.region is not None
        self._acts.append(self._thread.submit(self._heal, self.region))

    def check(self) -> None:
        """Raise what went wrong in an act that has ended."""
        for act in self._acts:
            if act.done():
                act.result()

    def _inject(self, region: str) -> None:
        self.asked = time.monotonic()
        self._regions.fault(self._kind, region)
        self.done = time.monotonic()

    def _heal(self, region: str) -> None:
        self.heal_asked = time.monotonic()
        self._regions.heal(region)
        self.heal_done = time.monotonic()


def run_experiment(
    load: LoadProcess, plan: Plan, regions: Regions, watch: Watch, say: Say, seconds: float = math.inf
) -> tuple[Fault, ...]:
    """Run the load, which lasts so many `seconds`, to its end with the faults in it; returns when all are healed."""
    load.wait_begun()
    kinds = iter(itertools.cycle(plan.kinds) if plan.again else plan.kinds)
    found: list[Fault] = []
    due, kind = plan.first, next(kinds, None)
    while load.running:
        elapsed = load.elapsed()
        if kind is not None and due <= elapsed and (elapsed + plan.lasts < seconds or not found):
            found.append(_let_happen(load, kind, plan.lasts, regions, watch, say))
            due, kind = load.elapsed() + plan.pause, next(kinds, None)
        watch(elapsed)
        time.sleep(TICK_SECONDS)
    if not found:
        load.result()  # says why, if the load's process died
        raise LoadError("The load ended before the fault was due.")
    return tuple(found)


def _let_happen(load: LoadProcess, kind: str, lasts: float, regions: Regions, watch: Watch, say: Say) -> Fault:
    """One fault, from its injection until the region is healed or the load has ended."""
    elapsed = load.elapsed()
    region = busiest_region(load.records, elapsed)
    if region is None:
        raise LoadError("No answer named its region in the last seconds, so there is none to let fail.")
    with Injection(regions, kind, say) as injection:
        injection.inject(region)
        say(f"{elapsed:5.1f} s  fault: {kind} {region}, which serves most")
        heal_at = elapsed + lasts
        while load.running and not injection.over:
            elapsed = load.elapsed()
            if not injection.healing and elapsed >= heal_at:
                injection.heal()
                say(f"{elapsed:5.1f} s  heal: {region}")
            injection.check()
            watch(elapsed)
            time.sleep(TICK_SECONDS)
    return Fault(
        kind, region, injection.asked - load.start, injection.done - load.start,
        injection.heal_asked - load.start, injection.heal_done - load.start,
    )  # fmt: skip
