"""The testbed as a library: the facade that tests, drills and the demo use, and the command line too.

    bed = Testbed(name="holdfast-test")
    bed.up(regions=1, control_plane_only=True)
    client = new_client(bed.kubeconfig("us-east"))
    bed.down()

Every method may be called by several processes; locks put changes of the same region one after the other. `status`
and the look-ups take no lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from . import state
from .addresses import region_names
from .bare.provider import BareProvider, slot_is_taken
from .commands import succeeds
from .errors import TestbedError, UnknownRegionError
from .kind import KindProvider
from .progress import SILENT, Progress
from .provider import Fault, FaultKind, Provider, RegionStatus
from .state import DEFAULT_NAME, Bed

PROVIDERS = ("auto", "bare", "kind")


@dataclass(frozen=True)
class Region:
    """How to reach one region."""

    name: str
    address: str  # host ports of the region's pods are reachable under it, from the host and from every region
    server: str
    kubeconfig: Path


class Testbed:
    """One named set of regions on this machine."""

    __test__ = False  # the name starts with "Test"; pytest must not collect it

    def __init__(self, name: str = DEFAULT_NAME, progress: Progress = SILENT) -> None:
        self.name = state.check_name(name)
        self._progress = progress

    def up(self, regions: int = 3, *, control_plane_only: bool = False, provider: str = "auto") -> tuple[Region, ...]:
        """Bring the testbed to running, ready and free of faults; starts only what is missing."""
        names = region_names(regions)
        with state.locked(self.name):
            bed = state.load_bed(self.name)
            if bed is None:
                made = Bed(self.name, -1, choose_provider(provider), control_plane_only, names)
                bed = state.claim_slot(made, slot_is_taken)
            elif provider not in ("auto", bed.provider):
                raise TestbedError(f"The testbed {self.name} runs with {bed.provider}; run `down` to change that.")
            bed = bed.widened(names, control_plane_only)
            state.save_bed(bed)
            with state.locked(self.name, *bed.regions):
                _provider(bed).up(bed, self._progress)
        return self.regions

    def down(self) -> bool:
        """Remove the testbed with all it has left on this machine; False if there was none."""
        with state.locked(self.name):
            bed = state.load_bed(self.name)
            if bed is None:
                return False
            with state.locked(self.name, state.LOADING, *bed.regions):
                _provider(bed).down(bed, self._progress)
                with self._progress.step("deleting data and logs"):
                    state.forget_bed(bed)
        return True

    def status(self) -> tuple[RegionStatus, ...]:
        """What is seen of every region now; empty when there is no testbed."""
        bed = state.load_bed(self.name)
        return _provider(bed).status(bed) if bed else ()

    @property
    def exists(self) -> bool:
        """Whether the testbed was brought up and not down again; says nothing of its health."""
        return state.load_bed(self.name) is not None

    @property
    def regions(self) -> tuple[Region, ...]:
        """All regions, in order of preference."""
        bed = self._bed()
        return tuple(_region(name, bed.kubeconfig(name)) for name in bed.regions)

    def region(self, name: str) -> Region:
        """The region of that name; UnknownRegionError if there is none."""
        self._known(self._bed(), name)
        return next(region for region in self.regions if region.name == name)

    def kubeconfig(self, region: str) -> Path:
        """The administrator's kubeconfig of a region."""
        bed = self._bed()
        self._known(bed, region)
        return bed.kubeconfig(region)

    def load_images(self, archives: Sequence[Path], regions: Sequence[str] | None = None) -> None:
        """Make the images in these docker archives available, in all regions or these; present ones are skipped."""
        with state.locked(self.name, state.LOADING):
            bed = self._bed()
            names = list(regions or bed.regions)
            for name in names:
                self._known(bed, name)
            _provider(bed).load_images(bed, names, [Path(archive) for archive in archives], self._progress)

    def fault(self, kind: FaultKind | str, region: str, *, delay_ms: int = 0) -> None:
        """Let a fault happen to a region, now; returns when it has."""
        self._act(region, Fault(FaultKind(kind), delay_ms))

    def heal(self, region: str) -> None:
        """Undo all faults of a region and wait until it is well."""
        self._act(region, None)

    def _act(self, region: str, fault: Fault | None) -> None:
        if fault is not None and fault.kind is FaultKind.DELAY and fault.delay_ms <= 0:
            raise TestbedError("A delay needs a length above zero: --delay-ms 80.")
        with state.locked(self.name, region):
            bed = self._bed()
            self._known(bed, region)
            _provider(bed).fault(bed, region, fault, self._progress)

    def _bed(self) -> Bed:
        bed = state.load_bed(self.name)
        if bed is None:
            raise TestbedError(f"There is no testbed {self.name}; start it with `holdfast-testbed up`.")
        return bed

    def _known(self, bed: Bed, region: str) -> None:
        if region not in bed.regions:
            raise UnknownRegionError(f"The testbed {self.name} has no region {region}, only {', '.join(bed.regions)}.")


def _region(name: str, kubeconfig: Path) -> Region:
    try:
        server: str = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    except FileNotFoundError as error:
        raise TestbedError(f"Region {name} was never started completely; run `holdfast-testbed up`.") from error
    return Region(name, urlsplit(server).hostname or "", server, kubeconfig)


def choose_provider(wanted: str) -> str:
    """The provider's name; `auto` takes kind where Docker answers and kind is installed, else bare."""
    if wanted not in PROVIDERS:
        raise TestbedError(f"There is no provider {wanted}, only {', '.join(PROVIDERS)}.")
    if wanted != "auto":
        return wanted
    return "kind" if succeeds(["kind", "version"]) and succeeds(["docker", "info"], timeout=10.0) else "bare"


def _provider(bed: Bed) -> Provider:
    return KindProvider() if bed.provider == "kind" else BareProvider()
