"""Shows what a long command is doing and for how long: a live display on a terminal, plain lines elsewhere.

`Progress` is handed down through the package; steps may run in several threads at once. A quiet one is the default
for library use.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

HEARTBEAT_SECONDS = 20.0

Update = Callable[[str], None]


class Progress:
    """Reports named steps with their elapsed time."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._lock = threading.Lock()
        self._bars: Bars | None = None
        self._running = 0

    def say(self, text: str) -> None:
        """Print one line."""
        if not self._quiet:
            self._console.print(text, markup=False)

    @contextmanager
    def step(self, text: str) -> Iterator[Update]:
        """Announce a step, keep showing that it runs, and print how long it took; yields a setter for a detail."""
        if self._quiet:
            yield lambda _detail: None
            return
        begun = time.monotonic()
        shown = self._live(text) if self._console.is_terminal else self._plain(text, begun)
        with shown as update:
            yield update
        self.say(f"✓ {text} ({time.monotonic() - begun:.1f} s)")

    @contextmanager
    def _live(self, text: str) -> Iterator[Update]:
        bars = self._enter()
        task = bars.add_task(text, total=None)
        try:
            yield lambda detail: bars.update(task, description=f"{text}: {detail}")
        finally:
            bars.remove_task(task)
            self._leave()

    def _enter(self) -> Bars:
        with self._lock:
            if self._bars is None:
                columns = (
                    SpinnerColumn(),
                    TextColumn("{task.description}", markup=False),
                    TimeElapsedColumn(),
                )
                self._bars = Bars(*columns, console=self._console, transient=True)
                self._bars.start()
            self._running += 1
            return self._bars

    def _leave(self) -> None:
        with self._lock:
            self._running -= 1
            if self._running == 0 and self._bars is not None:
                self._bars.stop()
                self._bars = None

    @contextmanager
    def _plain(self, text: str, begun: float) -> Iterator[Update]:
        ended = threading.Event()
        detail = [""]

        def beat() -> None:
            while not ended.wait(HEARTBEAT_SECONDS):
                suffix = f": {detail[0]}" if detail[0] else ""
                self.say(f"… {text}{suffix} ({time.monotonic() - begun:.0f} s)")

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield lambda new: detail.__setitem__(0, new)
        finally:
            ended.set()
            thread.join()


SILENT = Progress(quiet=True)
