"""Nothing that an engine's server has started outlives it, or the shim: with processes that leave their parents."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.engine.conftest import DEADLINE, wait_until
from tests.integration.engine.engines import wait_gone

from holdfast_engine.engines.child import Child
from holdfast_engine.engines.launch import END_AT_ONCE

pytestmark = pytest.mark.integration
FAMILY = """
import os, signal, sys, time
from pathlib import Path
pids = Path(sys.argv[1])
def live(name):
    (pids / ("." + name)).write_text(str(os.getpid()))
    (pids / ("." + name)).rename(pids / name)
    while True:
        time.sleep(60)
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        live("grandchild-in-its-own-session")
    os.wait()
    os._exit(0)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        live("daemon")
    os._exit(0)
if os.fork() == 0:
    live("child")
exec(sys.argv[2])
live("server")
"""
"""A server with a child, a grandchild in a session of its own and a daemon, which has no parent any more."""
NAMES = {"server", "child", "grandchild-in-its-own-session", "daemon"}
PARENT = """
import asyncio, sys
from holdfast_engine.engines.child import Child
async def main():
    child = Child()
    await child.start(sys.argv[1:])
    await child.wait()
asyncio.run(main())
"""
TELL_AND_LEAVE = """
def leave(*_):
    (pids / "told").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
"""
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


def family(folder: Path, server: str = "") -> list[str]:
    """The command; `server` is what the server does before it rests."""
    return [sys.executable, "-c", FAMILY, str(folder), server]


def supervised(command: list[str]) -> list[str]:
    return [sys.executable, "-m", "holdfast_engine.engines.launch", str(os.getpid()), *command]


def wait_complete(folder: Path) -> dict[str, int]:
    wait_until(lambda: {path.name for path in folder.iterdir()} >= NAMES, "the whole family")
    return {name: int((folder / name).read_text()) for name in NAMES}


@pytest.fixture(autouse=True)
def _nothing_left(tmp_path: Path) -> Iterator[None]:
    yield
    for path in tmp_path.iterdir():
        if path.name in NAMES:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.read_text()), signal.SIGKILL)


@pytest.fixture
def start() -> Iterator[Callable[[list[str]], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(command: list[str]) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, start_new_session=True))
        return started[-1]

    yield begin
    for process in started:
        process.send_signal(END_AT_ONCE)
        process.wait()


Start = Callable[[list[str]], subprocess.Popen[bytes]]


def test_nothing_outlives_a_parent_that_was_killed(start: Start, tmp_path: Path) -> None:
    parent = start([sys.executable, "-c", PARENT, *family(tmp_path)])
    pids = wait_complete(tmp_path)
    parent.kill()
    for pid in pids.values():
        wait_gone(pid)


def test_nothing_outlives_a_server_that_was_killed_and_its_signal_is_told(start: Start, tmp_path: Path) -> None:
    supervisor = start(supervised(family(tmp_path)))
    pids = wait_complete(tmp_path)
    os.kill(pids["server"], signal.SIGKILL)
    assert supervisor.wait(60) == -signal.SIGKILL
    for pid in pids.values():
        wait_gone(pid)


def test_nothing_goes_on_when_everything_is_to_end_at_once(start: Start, tmp_path: Path) -> None:
    supervisor = start(supervised(family(tmp_path, DEAF)))
    pids = wait_complete(tmp_path)
    os.kill(pids["child"], signal.SIGSTOP)
    supervisor.send_signal(END_AT_ONCE)
    assert supervisor.wait(60) == -signal.SIGKILL
    for pid in pids.values():
        wait_gone(pid)


def test_sigterm_is_passed_on_and_what_the_server_leaves_behind_is_killed(start: Start, tmp_path: Path) -> None:
    supervisor = start(supervised(family(tmp_path, TELL_AND_LEAVE)))
    pids = wait_complete(tmp_path)
    supervisor.terminate()
    assert supervisor.wait(60) == 0
    assert (tmp_path / "told").exists()
    for pid in pids.values():
        wait_gone(pid)


async def test_a_server_that_does_not_end_in_time_is_killed_with_all_it_started(tmp_path: Path) -> None:
    child = Child()
    await child.start(family(tmp_path, DEAF))
    pids = await asyncio.to_thread(wait_complete, tmp_path)
    await child.stop(0.2)
    assert await child.wait() == -signal.SIGKILL
    for pid in pids.values():
        await asyncio.to_thread(wait_gone, pid)


async def test_an_end_is_told_also_while_something_that_lives_holds_the_output(tmp_path: Path) -> None:
    child = Child()
    await child.start(family(tmp_path))
    pids = await asyncio.to_thread(wait_complete, tmp_path)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    assert await asyncio.wait_for(child.wait(), DEADLINE) == -signal.SIGKILL
    os.kill(pids["daemon"], 0)  # it lives


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(3)", 3), ("os.abort()", -signal.SIGABRT), ("os.kill(os.getpid(), 15)", -15)]
)
def test_the_supervisor_ends_as_its_command_did(start: Start, end: str, code: int) -> None:
    assert start(supervised([sys.executable, "-c", f"import os, sys; {end}"])).wait(60) == code


def test_a_command_ends_with_a_supervisor_that_was_killed(start: Start, tmp_path: Path) -> None:
    supervisor = start(supervised(family(tmp_path)))
    pids = wait_complete(tmp_path)
    supervisor.kill()
    wait_gone(pids["server"])


def test_a_command_does_not_begin_for_a_parent_that_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "holdfast_engine.engines.launch", "1", "touch", str(tmp_path / "begun")]
    refused = subprocess.run(command, capture_output=True, timeout=60)
    assert (refused.returncode, refused.stderr) == (1, b"Error: the parent ended before its command began.\n")
    assert not (tmp_path / "begun").exists()


def test_orphans_that_end_do_not_stay_as_zombies(start: Start, tmp_path: Path) -> None:
    orphan = "if os.fork() == 0:\n    if os.fork() == 0:\n        os._exit(0)\n    os._exit(0)\nos.wait()"
    supervisor = start(supervised(family(tmp_path, orphan)))
    pids = wait_complete(tmp_path)
    children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children")
    wait_until(
        lambda: {int(pid) for pid in children.read_text().split()} == {pids["server"], pids["daemon"]},
        "the supervisor to have no children but those that live",
    )
