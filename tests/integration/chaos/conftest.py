"""Starts the servers that the load is sent to: a real engine, and a stand-in that names a region."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast_engine.tiny_model import write_tiny_model

DEADLINE = 120.0
"""Seconds that a wait may take on a busy machine; nothing is asserted about times."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {DEADLINE:g} seconds for: {what}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process on a port of its own, which can be killed and started again."""

    def __init__(self, command: Callable[[int], list[str]]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = command(self.port)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        self.process = subprocess.Popen(self._command)
        wait_until(self._healthy, "the server to be ready")
        return self

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _healthy(self) -> bool:
        with contextlib.suppress(OSError, urllib.error.HTTPError):
            return bool(urllib.request.urlopen(f"{self.url}/health", timeout=5).status == 200)
        return False


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf").path


@pytest.fixture
def engine(model: Path) -> Iterator[Server]:
    """A real engine that serves the model `tiny`."""

    def command(port: int) -> list[str]:
        return [
            *(sys.executable, "-m", "holdfast_engine", "serve", "--model", str(model), "--served-name", "tiny"),
            *("--host", "127.0.0.1", "--port", str(port), "--grpc-port", "0", "--step-interval", "0.01"),
        ]

    server = Server(command)
    yield server.start()
    server.kill()


@pytest.fixture
def region() -> Iterator[Server]:
    """A stand-in for a region: answers like an engine behind a gateway and names the region `us-east`."""
    script = Path(__file__).parent / "region_stand_in.py"
    server = Server(lambda port: [sys.executable, str(script), str(port)])
    yield server.start()
    server.kill()
