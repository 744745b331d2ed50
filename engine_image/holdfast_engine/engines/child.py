"""An engine's server as a child process: its output passes through, its last lines are kept, its group ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Sequence
from typing import BinaryIO

KEPT_LINES = 400
KEPT_LENGTH = 2000
"""Characters of a kept line."""
PIPE_SECONDS = 1.0
"""For what a dead process has written to be read; its own children may hold the pipe open for longer."""


class LastLines:
    """The last lines of an output that comes in pieces; a carriage return ends a line, too (progress bars)."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._begun = b""

    def feed(self, data: bytes) -> None:
        *whole, self._begun = (self._begun + data).replace(b"\r", b"\n").split(b"\n")
        self._lines.extend(_text(line) for line in whole if line)
        self._begun = self._begun[-4 * KEPT_LENGTH :]

    def read(self) -> list[str]:
        return [*self._lines, *([_text(self._begun)] if self._begun else [])]


def _text(line: bytes) -> str:
    return line.decode(errors="replace")[:KEPT_LENGTH]


class Child:
    """One process, in a session of its own so that its children can be ended with it."""

    def __init__(self) -> None:
        self._out, self._err = LastLines(), LastLines()
        self._process: asyncio.subprocess.Process | None = None
        self._pumps: list[asyncio.Task[None]] = []

    async def start(self, command: Sequence[str]) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "holdfast_engine.engines.launch"),
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        ways = (
            (self._process.stdout, sys.stdout.buffer, self._out),
            (self._process.stderr, sys.stderr.buffer, self._err),
        )
        self._pumps = [asyncio.create_task(_pass_on(*way)) for way in ways]

    def last_lines(self) -> list[str]:
        """Those of its output, then those of its error output."""
        return self._out.read() + self._err.read()

    async def wait(self) -> int:
        """Until the process has ended and its output is read: its code, negative for a signal."""
        assert self._process is not None
        code = await self._process.wait()
        await asyncio.wait(self._pumps, timeout=PIPE_SECONDS)
        return code

    async def stop(self, seconds: float) -> None:
        """SIGTERM to the process; SIGKILL to all of its group if it still runs after `seconds`."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), seconds)
        self.kill()

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


async def _pass_on(source: asyncio.StreamReader, target: BinaryIO, lines: LastLines) -> None:
    while data := await source.read(1 << 16):
        lines.feed(data)
        with contextlib.suppress(OSError):
            target.write(data)
            target.flush()
