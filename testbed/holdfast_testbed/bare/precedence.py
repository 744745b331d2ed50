"""Lets regions run before what else the machine does.

Linux shares the processor among sessions and cgroups, not among processes. containerd puts the containers of all
regions into one cgroup that by default gets as much as one busy session: beside a test run or two, gateways and engines
would get so little that their health checks fail. So that cgroup gets more, and so does every daemon of a region.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
CONTAINERS = "k8s.io"
"""containerd's namespace for Kubernetes; its cgroup at the top of the hierarchy has this name."""
TIMES = 8
"""How much more than a session all containers get together."""
NICENESS = -10
"""Of a daemon's session: about nine times as much as others."""


def of_daemon(pid: int) -> None:
    """Give a daemon precedence, where the machine allows it."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS))


def of_containers(cgroups: Path = CGROUPS) -> None:
    """Give all containers precedence, those to come too, where the machine allows it."""
    unified = (cgroups / "cgroup.controllers").exists()
    folder = cgroups / CONTAINERS if unified else cgroups / "cpu" / CONTAINERS
    name, usual = ("cpu.weight", 100) if unified else ("cpu.shares", 1024)
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(str(TIMES * usual))
