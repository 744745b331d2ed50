"""What must hold of this machine before a bare testbed can run, each failure with what to do about it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from holdfast_testbed.errors import HostError

GIB = 1024**3


def require_root() -> None:
    """Namespaces, mounts and cgroups need root."""
    if os.geteuid() != 0:
        raise HostError("The bare testbed makes network namespaces and mounts: run it as root (sudo).")


def require_bookworm(purpose: str) -> None:
    """Packages are taken from Debian 12."""
    name, version = debian_release(Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else "")
    if (name, version) != ("debian", "12"):
        raise HostError(
            f"{purpose} takes packages of Debian 12, but this is {name or 'unknown'} {version}; "
            "use a Debian 12 machine, or one with Docker and kind and `--provider kind`."
        )


def debian_release(os_release: str) -> tuple[str, str]:
    """ID and VERSION_ID of an os-release file."""
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    return fields.get("ID", "").strip('"'), fields.get("VERSION_ID", "").strip('"')


def require_space(folder: Path, gib: float, purpose: str) -> None:
    """Whether the disk that holds the folder has room."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free / GIB
    if free < gib:
        raise HostError(
            f"{purpose} needs {gib:.0f} GiB of disk below {folder}, but only {free:.1f} GiB are free; "
            "free some, or set XDG_CACHE_HOME or XDG_STATE_HOME to a larger disk."
        )
