"""The load's process: reads a `LoadSpec` as JSON from standard input and writes JSON lines to standard output.

The first line tells the load's zero, then comes one line per record, and last what the load itself cost. A missing
last line means that the process died. The signal `FINISH` ends the load early: what runs then is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path

from .client import LoadSpec
from .load import generate
from .records import Record, to_line

NICENESS = -10
FINISH = signal.SIGUSR1


def main() -> None:
    """Generate the load that standard input asks for."""
    _take_precedence()
    spec = LoadSpec(**json.load(sys.stdin))
    gc.freeze()
    cpu, wall = time.process_time(), time.monotonic()
    asyncio.run(_generate(spec))
    cost = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.monotonic() - wall}
    _write(json.dumps({"end": cost}))


async def _generate(spec: LoadSpec) -> None:
    enough = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(FINISH, enough.set)
    await generate(spec, lambda start: _write(json.dumps({"start": start})), _emit, enough)


def _take_precedence() -> None:
    """Where it is allowed, run before the busy processes that are measured: a late clock measures itself."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        Path("/proc/self/autogroup").write_text(str(NICENESS))


def _emit(record: Record) -> None:
    _write(to_line(record))


def _write(line: str) -> None:
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(1)  # nobody reads any more: the demo is gone


if __name__ == "__main__":
    main()
