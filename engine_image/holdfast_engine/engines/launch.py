"""`python -m holdfast_engine.engines.launch PARENT COMMAND…` runs COMMAND; nothing of it outlives PARENT, a pid.

A supervisor between the shim and an engine's server, whose own children (vLLM's engine core, its workers) would go on
with the GPU's memory when the server dies by SIGKILL. It is the subreaper of all that the command starts, whatever
sessions and groups that makes for itself, and kills it when the command has ended, when PARENT dies (the kernel then
sends END_AT_ONCE), or when it is told to by END_AT_ONCE. SIGTERM is passed on to the command. It ends as the command
did: with its code, or by its signal.

Should the supervisor itself be killed, the kernel ends the command, but not what that has started.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

END_AT_ONCE = signal.SIGHUP
SWEEP_SECONDS = 5.0
"""For killed processes to be gone; one that hangs in a driver's call may never be."""
_LOOK_SECONDS = 0.01
_HEARD = {signal.SIGCHLD, signal.SIGTERM, END_AT_ONCE}
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, END_AT_ONCE)
    if os.getppid() != parent:
        sys.exit("Error: the parent ended before its command began.")
    supervisor = os.getpid()
    if (pid := os.fork()) == 0:
        _become(command, supervisor)
    status = _follow(pid)
    ended = _sweep()
    _end_like(ended.get(pid, signal.SIGKILL) if status is None else status)


def _become(command: list[str], supervisor: int) -> NoReturn:
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        sys.exit(1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"Error: {command[0]} cannot be run: {error.strerror}")


def _follow(pid: int) -> int | None:
    """Wait for the command's end and give its status; None when everything is to end at once."""
    while (heard := signal.sigwait(_HEARD)) != END_AT_ONCE:
        if heard == signal.SIGTERM:
            os.kill(pid, signal.SIGTERM)
        elif (status := _reap().get(pid)) is not None:
            return status
    return None


def _sweep() -> dict[int, int]:
    """Kill all descendants until none is left: the statuses of those that ended as children of this process."""
    ended: dict[int, int] = {}
    give_up = time.monotonic() + SWEEP_SECONDS
    while time.monotonic() < give_up:
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended |= _reap()
        if not descendants(os.getpid()):
            break
        time.sleep(_LOOK_SECONDS)
    return ended


def _reap() -> dict[int, int]:
    """The children that have ended, with their statuses as of wait(2)."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    return ended


def descendants(root: int) -> list[int]:
    """The children of `root`, theirs, and so on, those included that have ended and are not yet waited for."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            except OSError:  # it has ended meanwhile
                continue
    found = [root]
    for parent in found:
        found += [pid for pid, its in parents.items() if its == parent]
    return found[1:]


def _end_like(status: int) -> NoReturn:
    """End with the code or by the signal that `status`, as of wait(2), tells."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), -code)
    sys.stdout.flush()
    os._exit(code if code >= 0 else 128 - code)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
