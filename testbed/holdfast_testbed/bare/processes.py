"""Starts, recognises and ends a region's processes.

Two ways lead to a process. Those we start are recorded with the time of their start, so that a recycled process id is
never taken for one of ours. All others (shims, containers) are found by where they live: the region's network
namespace, its cgroup, or below such a process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from holdfast_testbed.state import write_atomically

from . import precedence
from .site import Site

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Process:
    """A process, safe against reuse of its id: `started` is in clock ticks since this boot."""

    pid: int
    started: int
    boot: str


@dataclass(frozen=True)
class _Stat:
    parent: int
    state: str
    started: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the command in brackets and may itself hold blanks and brackets.
    fields = text[text.rindex(")") + 2 :].split()
    return _Stat(parent=int(fields[1]), state=fields[0], started=int(fields[19]))


def identify(pid: int) -> Process | None:
    """The process with this id, unless it has ended."""
    stat = _stat(pid)
    if stat is None or stat.state in "ZX":
        return None
    return Process(pid, stat.started, BOOT_ID.read_text().strip())


def spawn(argv: list[str], log: Path) -> Process:
    """Start a daemon: a session of its own, output to the log, no input, none of our file descriptors."""
    log.parent.mkdir(parents=True, exist_ok=True)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawnp(argv[0], argv, dict(os.environ), file_actions=actions, setsid=True)
    _DAEMONS.add(pid)
    precedence.of_daemon(pid)
    return identify(pid) or Process(pid, 0, "")


def record(site: Site, component: str, process: Process) -> None:
    """Remember a component's process."""
    write_atomically(_record(site, component), json.dumps(asdict(process)))


def started_at(site: Site, component: str) -> float:
    """When the component was last started, in seconds of the epoch; 0 if it never was."""
    try:
        return _record(site, component).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def recorded(site: Site, component: str) -> Process | None:
    """The component's process if it still runs."""
    try:
        process = Process(**json.loads(_record(site, component).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    reap()
    return process if identify(process.pid) == process else None


def _record(site: Site, component: str) -> Path:
    return site.folder / "processes" / f"{component}.json"


def members(site: Site) -> set[int]:
    """Ids of all processes that live in the region."""
    try:
        namespace = site.namespace_path.stat().st_ino
    except FileNotFoundError:
        namespace = -1
    known = {
        process.pid
        for path in (site.folder / "processes").glob("*.json")
        if (process := recorded(site, path.stem)) is not None
    }
    stats: dict[int, _Stat] = {}
    found: set[int] = set()
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        stat = _stat(pid)
        if stat is None or stat.state in "ZX":
            continue
        stats[pid] = stat
        if pid in known or _lives_in(pid, namespace, site.cgroup):
            found.add(pid)
    return _with_descendants(found, {pid: stat.parent for pid, stat in stats.items()}) - _ourselves()


def _lives_in(pid: int, namespace: int, cgroup: str) -> bool:
    with contextlib.suppress(OSError):
        if Path(f"/proc/{pid}/ns/net").stat().st_ino == namespace:
            return True
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        return any((line.split(":", 2)[2] + "/").startswith(cgroup + "/") for line in lines)
    return False


def _with_descendants(roots: set[int], parents: dict[int, int]) -> set[int]:
    found = set(roots)
    grew = True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in found and pid not in found}
        found |= more
        grew = bool(more)
    return found


def _ourselves() -> set[int]:
    found, pid = set(), os.getpid()
    while pid > 1 and (stat := _stat(pid)) is not None:
        found.add(pid)
        pid = stat.parent
    return found | {0, 1}


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def signal_region(site: Site, number: signal.Signals) -> int:
    """Signal all processes of a region, again for those born meanwhile, until none is new; returns how many."""
    done: set[int] = set()
    while new := members(site) - done:
        signal_all(new, number)
        done |= new
        if number is signal.SIGKILL:
            reap()
    return len(done)


def kill_region(site: Site, timeout: float = 10.0) -> bool:
    """End every process of a region at once; whether all were gone in time."""
    deadline = time.monotonic() + timeout
    signal_region(site, signal.SIGKILL)
    while remaining := members(site):
        if time.monotonic() > deadline:
            return False
        signal_all(remaining, signal.SIGKILL)
        time.sleep(0.02)
    return True


def reap() -> None:
    """Collect those of our own daemons that have died; a library user outlives them."""
    for pid in list(_DAEMONS):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended = pid
        if ended:
            _DAEMONS.discard(pid)


_DAEMONS: set[int] = set()
