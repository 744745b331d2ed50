"""The port between the testbed and the way its regions are run, and the words both sides use.

Providers: `bare` (network namespaces and real components on Debian, no container engine needed) and `kind` (where
Docker answers). A provider keeps no state of its own: the `Bed` it is given says what should exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from .progress import Progress
from .state import Bed


class FaultKind(StrEnum):
    """What can happen to a region."""

    KILL = "kill"
    FREEZE = "freeze"
    CUT = "cut"
    DELAY = "delay"


@dataclass(frozen=True)
class Fault:
    """One fault; `delay_ms` is what each packet takes longer in each direction, in milliseconds."""

    kind: FaultKind
    delay_ms: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.delay_ms} ms" if self.kind is FaultKind.DELAY else str(self.kind)


@dataclass(frozen=True)
class RegionStatus:
    """What is seen of one region now."""

    name: str
    address: str
    kubeconfig: Path
    faults: tuple[Fault, ...] = ()
    components: dict[str, bool] = field(default_factory=dict)
    api_ready: bool = False
    node_ready: bool | None = None  # None: the testbed has no nodes, or the API server does not answer

    @property
    def healthy(self) -> bool:
        """Whether everything that should run runs and answers."""
        return self.api_ready and all(self.components.values()) and self.node_ready is not False


class Provider(Protocol):
    """Runs the regions of testbeds."""

    def up(self, bed: Bed, progress: Progress) -> None:
        """Bring every region of the testbed to running, healing faults; quick when nothing is missing."""

    def down(self, bed: Bed, progress: Progress) -> None:
        """Remove everything that `up` made, whatever state it is in."""

    def status(self, bed: Bed) -> tuple[RegionStatus, ...]:
        """Look at every region."""

    def load_images(self, bed: Bed, regions: Sequence[str], archives: Sequence[Path], progress: Progress) -> None:
        """Make the images in these docker archives available in these regions."""

    def fault(self, bed: Bed, region: str, fault: Fault | None, progress: Progress) -> None:
        """Inject a fault into a region, or with None undo all of its faults and wait until it is well."""
