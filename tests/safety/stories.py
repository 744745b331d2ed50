"""What happens to a world: a list of faults and of what people do, made from a seed and readable when printed."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from enum import StrEnum

REGIONS = ("us-east", "eu-west", "ap-south", "sa-east", "af-south")
CHAOS_SECONDS = 50.0
"""From the first fault until everything is healed."""


class Kind(StrEnum):
    """What happens."""

    CRASH = "operator crashes"
    PAUSE = "operator sleeps"
    PAUSE_AT_PLAN = "operator sleeps while it writes a plan"
    RESIGN = "operator ends cleanly"
    CUT = "link is cut"
    SPLIT = "regions are split"
    DOWN = "API server is down"
    SLOW = "API server is slow"
    LOSSY = "answers are lost"
    FAIL = "engines fail"
    EDIT = "service is edited"
    DELETE = "service is deleted"
    CREATE = "service is created"
    DRAIN = "drain is ordered"
    DRAIN_OVERRIDE = "drain is ordered, whatever the cap says"


WEIGHTS = {
    Kind.CRASH: 3,
    Kind.PAUSE: 2,
    Kind.PAUSE_AT_PLAN: 3,
    Kind.RESIGN: 1,
    Kind.CUT: 2,
    Kind.SPLIT: 3,
    Kind.DOWN: 2,
    Kind.SLOW: 2,
    Kind.LOSSY: 2,
    Kind.FAIL: 4,
    Kind.EDIT: 5,
    Kind.DELETE: 2,
    Kind.CREATE: 2,
    Kind.DRAIN: 1,
    Kind.DRAIN_OVERRIDE: 2,
}


@dataclass(frozen=True)
class Fault:
    """One thing that happens, to whom, and for how long."""

    at: float
    kind: Kind
    regions: tuple[str, ...]
    seconds: float = 0.0
    value: int = 0
    """What an edit writes."""

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        value = f" ({self.value})" if self.kind in (Kind.EDIT, Kind.CREATE) else ""
        return f"{self.at:6.1f} s  {self.kind}{value}: {', '.join(self.regions)}{lasting}"


@dataclass(frozen=True)
class Story:
    """A whole schedule."""

    seed: int
    regions: tuple[str, ...]
    witness: str
    """The region that runs no engines; empty if all do."""
    everywhere: bool
    """Whether the service is applied in every region at first, or in one."""
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        witness = f", {self.witness} a witness" if self.witness else ""
        where = "everywhere" if self.everywhere else f"in {self.regions[0]}"
        head = f"seed {self.seed}: {len(self.regions)} regions{witness}; the service is applied {where}"
        return "\n".join([head, *(f"  {fault}" for fault in self.faults)])


def story(seed: int) -> Story:
    """The story of a seed."""
    rng = random.Random(f"story {seed}")
    regions = REGIONS[: 5 if rng.random() < 0.2 else 3]
    witness = regions[-1] if rng.random() < 0.25 else ""
    count = rng.randint(2, 11)
    kinds = rng.choices(list(WEIGHTS), weights=list(WEIGHTS.values()), k=count)
    faults = [_fault(rng, kind, regions) for kind in kinds]
    for fault in tuple(faults):
        if fault.kind is Kind.DELETE and rng.random() < 0.6:  # made again, often before everybody knows
            again = _fault(rng, Kind.CREATE, regions)
            faults.append(replace(again, at=round(min(fault.at + rng.uniform(0.5, 15), CHAOS_SECONDS), 1)))
    faults.sort(key=lambda fault: fault.at)
    return Story(seed, regions, witness, rng.random() < 0.5, tuple(faults))


def _fault(rng: random.Random, kind: Kind, regions: tuple[str, ...]) -> Fault:
    at = round(8 + rng.uniform(0, CHAOS_SECONDS - 12), 1)
    some = rng.sample(regions, k=len(regions))
    seconds = round(rng.choice((rng.uniform(1, 8), rng.uniform(8, 40))), 1)
    match kind:
        case Kind.CRASH:
            return Fault(at, kind, (some[0],), round(rng.uniform(6, 30), 1))
        case Kind.PAUSE | Kind.PAUSE_AT_PLAN:
            return Fault(at, kind, (some[0],), round(rng.uniform(3, 35), 1))
        case Kind.RESIGN:
            return Fault(at, kind, (some[0],))
        case Kind.CUT:
            return Fault(at, kind, tuple(some[:2]), seconds)
        case Kind.SPLIT:
            return Fault(at, kind, tuple(some[: rng.randint(1, len(regions) // 2)]), seconds)
        case Kind.DOWN | Kind.SLOW | Kind.LOSSY | Kind.FAIL | Kind.DRAIN | Kind.DRAIN_OVERRIDE:
            return Fault(at, kind, (some[0],), seconds)
        case Kind.EDIT | Kind.CREATE:
            return Fault(at, kind, (some[0],), value=rng.randint(1, 7))
        case Kind.DELETE:
            return Fault(at, kind, (some[0],))
