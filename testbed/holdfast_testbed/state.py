"""What is recorded about testbeds: one `bed.json` per testbed, written before anything is started.

Because the record comes first, `down` finds everything even after an `up` that was killed half-way. A slot (see
`addresses`) is claimed under a lock over all testbeds of this user; links that exist tell of other users' testbeds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .addresses import SLOTS, AddressPlan, plan_addresses
from .errors import BedConflictError, TestbedError
from .locks import held
from .paths import state_root

DEFAULT_NAME = "holdfast"
LOADING = "loading"


@dataclass(frozen=True)
class Bed:
    """One testbed as recorded on disk."""

    name: str
    slot: int
    provider: str
    control_plane_only: bool
    regions: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Folder of everything this testbed keeps on disk."""
        return state_root() / self.name

    @property
    def addresses(self) -> AddressPlan:
        """Where the testbed lives."""
        return plan_addresses(self.slot, self.regions)

    def region_folder(self, region: str) -> Path:
        """Folder of one region."""
        return self.folder / region

    def kubeconfig(self, region: str) -> Path:
        """The administrator's kubeconfig of one region."""
        return self.region_folder(region) / "kubeconfig"

    def widened(self, regions: tuple[str, ...], control_plane_only: bool) -> Bed:
        """This testbed with further regions and, if asked for, nodes; nothing that exists is taken away."""
        merged = self.regions + tuple(name for name in regions if name not in self.regions)
        return replace(self, regions=merged, control_plane_only=self.control_plane_only and control_plane_only)


def check_name(name: str) -> str:
    """The name, if it can be part of folders, namespaces and cgroups."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,29}", name):
        raise TestbedError(f"{name!r} cannot name a testbed: use up to 30 lower-case letters, digits and dashes.")
    return name


def load_bed(name: str) -> Bed | None:
    """The recorded testbed of that name, if there is one."""
    try:
        raw = json.loads((state_root() / check_name(name) / "bed.json").read_text())
    except FileNotFoundError:
        return None
    return Bed(**{**raw, "regions": tuple(raw["regions"])})


def save_bed(bed: Bed) -> None:
    """Record a testbed, atomically."""
    bed.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(bed.folder / "bed.json", json.dumps(asdict(bed), indent=2) + "\n")


def forget_bed(bed: Bed) -> None:
    """Delete all that the testbed keeps on disk."""
    shutil.rmtree(bed.folder, ignore_errors=True)


def claim_slot(bed: Bed, is_taken: Callable[[int], bool]) -> Bed:
    """The testbed, recorded with the first slot that no other has and that `is_taken` does not know.

    The default testbed's slot is 0, so that its addresses are the same on every machine.
    """
    with held(state_root() / ".slots.lock"):
        others = {other.slot for other in recorded_beds() if other.name != bed.name}
        wanted = range(SLOTS) if bed.name == DEFAULT_NAME else [*range(1, SLOTS), 0]
        for slot in wanted:
            if slot not in others and not is_taken(slot):
                claimed = replace(bed, slot=slot)
                save_bed(claimed)
                return claimed
    raise BedConflictError(
        f"All {SLOTS} address ranges are in use; end a testbed with `holdfast-testbed down --name …`."
    )


def recorded_beds() -> list[Bed]:
    """Every testbed this user has recorded."""
    found = (load_bed(folder.parent.name) for folder in sorted(state_root().glob("*/bed.json")))
    return [bed for bed in found if bed is not None]


@contextmanager
def locked(name: str, *parts: str) -> Iterator[None]:
    """Hold the locks of these parts of a testbed; without parts, that of its make-up (which regions there are).

    Parts are regions and `LOADING`: a fault in one region does not wait until another is healed or loaded.
    """
    with ExitStack() as stack:
        for part in parts or ("",):
            stack.enter_context(held(state_root() / f".{name}@{part}.lock"))
        yield


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file so that a reader sees the old or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(path)
