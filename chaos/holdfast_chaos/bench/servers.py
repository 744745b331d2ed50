"""Starts the servers that a benchmark measures, waits until they answer, and ends them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from holdfast_chaos.errors import tail

from .benchmark import BenchError

START_SECONDS = 30.0
PAUSE_SECONDS = 0.05


class Server:
    """A process group of its own; leaving it ends all of it."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._environment = environment

    def __enter__(self) -> Server:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def pid(self) -> int:
        """The first process's id."""
        return self._process.pid

    def wait_until(self, answers: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Return when it answers; BenchError with its last words if it ends or takes too long."""
        end = time.monotonic() + seconds
        while not answers():
            why = ""
            if self._process.poll() is not None:
                why = "ended before it answered"
            elif time.monotonic() > end:
                why = f"did not answer within {seconds:.0f} s"
            if why:
                raise BenchError(f"The {self.name} {why}; its log ends with:\n{tail(self._log)}")
            time.sleep(PAUSE_SECONDS)


def answers(url: str, body: bytes, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a JSON request is answered with 200."""
    request = urllib.request.Request(url, body, {"content-type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:  # HTTPError is one too
        return False
