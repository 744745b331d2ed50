"""Runs the load's process and collects its records while it works.

A context manager: leaving it ends the process. Its clock is `time.monotonic()`, the same in every process of the
machine, so that a fault's moment and a request's moment can be compared.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from .client import LoadSpec
from .errors import LoadError, tail
from .records import Record, Records, from_json
from .worker import FINISH

START_SECONDS = 60.0
STOP_SECONDS = 5.0


@dataclass(frozen=True)
class LoadCost:
    """What the load itself used."""

    cpu_seconds: float
    wall_seconds: float

    @property
    def cpu_percent(self) -> float:
        """Percent of one core."""
        return 100 * self.cpu_seconds / self.wall_seconds if self.wall_seconds else 0.0


class LoadProcess:
    """One load, from its start to its last record."""

    def __init__(self, spec: LoadSpec) -> None:
        self.spec = spec
        self.records: list[Record] = []
        """Grows while the load runs."""
        self.start = 0.0
        """The load's zero on `time.monotonic()`."""
        self.cost: LoadCost | None = None
        """Known once the load has ended well."""
        self._begun = threading.Event()

    def __enter__(self) -> LoadProcess:
        self._folder = tempfile.TemporaryDirectory(prefix="holdfast-load-")
        self._log = Path(self._folder.name) / "load.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "holdfast_chaos.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True,  # Ctrl-C reaches it through `stop` only
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            json.dump({**asdict(self.spec), "headers": dict(self.spec.headers)}, self._process.stdin)
            self._process.stdin.close()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_begun(self) -> None:
        """Return when the load's zero is known; LoadError if the process does not get there."""
        if not self._begun.wait(START_SECONDS) or not self.start:
            self.stop(keep_log=True)
            raise LoadError(f"The load did not start:\n{self._last_words()}")

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether more records may come."""
        return self._reader.is_alive()

    def elapsed(self) -> float:
        """Seconds since the load's zero."""
        return time.monotonic() - self.start

    def finish(self) -> None:
        """Send nothing more; what runs is waited for by `result`. Not before `wait_begun`."""
        self._process.send_signal(FINISH)

    def result(self) -> Records:
        """All records, once the load has ended; LoadError if it died."""
        self._reader.join()
        if self.cost is None:
            raise LoadError(f"The load's process ended before its time:\n{self._last_words()}")
        return Records.of(self.records)

    def stop(self, keep_log: bool = False) -> None:
        """End the process, whatever it does."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join()
        if not keep_log:
            self._folder.cleanup()

    def _read(self, lines: IO[str]) -> None:
        with lines, contextlib.suppress(ValueError):  # a line that was cut: the process died, `end` is missing
            for line in lines:
                content = json.loads(line)
                if record := from_json(content):
                    self.records.append(record)
                elif "start" in content:
                    self.start = content["start"]
                    self._begun.set()
                elif "end" in content:
                    self.cost = LoadCost(**content["end"])
        self._begun.set()

    def _last_words(self) -> str:
        return tail(self._log)
