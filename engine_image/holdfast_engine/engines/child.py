"""An engine's server as a child process: its output passes through, its last lines are kept, nothing outlives it.

What runs as the child is a supervisor (`holdfast_engine.engines.launch`), which runs the server, ends as it does, and
takes everything with it that the server has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from holdfast_engine.engines.launch import END_AT_ONCE, SWEEP_SECONDS

KEPT_LINES = 400
KEPT_LENGTH = 2000
"""Characters of a kept line."""
PIPE_SECONDS = 1.0
"""For what a dead process has written to be read; one that hangs in the kernel may hold the pipe open for longer."""


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
    """One command and all that it starts."""

    def __init__(self) -> None:
        self._out, self._err = LastLines(), LastLines()
        self._process: asyncio.subprocess.Process | None = None
        self._pumps: list[asyncio.Task[None]] = []

    async def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start `command`; `environment` is added to this process's own."""
        # The pipes are not asyncio's: its `wait` lasts until nobody holds their other ends any more.
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "holdfast_engine.engines.launch", str(os.getpid())),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out_end,
                stderr=err_end,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        finally:
            os.close(out_end)
            os.close(err_end)
        ways = ((out, sys.stdout.buffer, self._out), (err, sys.stderr.buffer, self._err))
        self._pumps = [asyncio.create_task(_pass_on(*way)) for way in ways]

    @property
    def pid(self) -> int | None:
        """The supervisor's; None before the start."""
        return None if self._process is None else self._process.pid

    def last_lines(self) -> list[str]:
        """Those of its output, then those of its error output."""
        return self._out.read() + self._err.read()

    async def wait(self) -> int:
        """Until the command has ended and its output is read: its code, negative for a signal."""
        assert self._process is not None
        code = await self._process.wait()
        await asyncio.wait(self._pumps, timeout=PIPE_SECONDS)
        return code

    async def stop(self, seconds: float) -> None:
        """SIGTERM to the command; everything is killed when it has ended, or after `seconds`. 0: at once."""
        for order, patience in ((signal.SIGTERM, seconds), (END_AT_ONCE, SWEEP_SECONDS)):
            if patience and self._process is not None and self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError, TimeoutError):
                    self._process.send_signal(order)
                    await asyncio.wait_for(self._process.wait(), patience)


async def _pass_on(end: int, target: BinaryIO, lines: LastLines) -> None:
    source = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(source), os.fdopen(end, "rb", buffering=0)
    )
    with contextlib.closing(transport):
        while data := await source.read(1 << 16):
            lines.feed(data)
            with contextlib.suppress(OSError):
                target.write(data)
                target.flush()
