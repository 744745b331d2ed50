"""Servers for tests out of Debian's packages: the installed one, or the package unpacked and not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Program:
    """A program, and the environment that it needs beside the present one."""

    path: str
    environment: dict[str, str] = field(default_factory=dict)


def program(name: str, folder: Path, *packages: str) -> Program | None:
    """The installed program, else the one in `packages`, unpacked into `folder`; None if neither is to be had."""
    if (installed := shutil.which(name)) is not None:
        return Program(installed)
    folder.mkdir(parents=True, exist_ok=True)
    download = ["apt-get", "-q", "download", *packages]
    try:
        if subprocess.run(download, cwd=folder, capture_output=True).returncode != 0:
            subprocess.run(["apt-get", "-q", "update"], check=True, capture_output=True)  # a new machine has no lists
            subprocess.run(download, cwd=folder, check=True, capture_output=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), "."], cwd=folder, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    found = [path for path in folder.glob(f"usr/*bin/{name}") if path.is_file()]
    libraries = ":".join(map(str, (folder / "usr/lib").glob("*-linux-gnu")))
    before = os.environ.get("LD_LIBRARY_PATH", "")
    return Program(str(found[0]), {"LD_LIBRARY_PATH": f"{libraries}:{before}".strip(":")}) if found else None
