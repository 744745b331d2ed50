"""Starts real servers as process groups of their own, so that each can be killed, frozen and thawed as a whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

RELAY_PORT = 9904
LIMITER_PORT = 9907
PACE = "0.04"
"""Seconds for each token."""


class Server:
    """A process group that belongs to one test."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self._command = command
        self._log = log
        self._env = os.environ | (env or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, or starts it again."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._env, start_new_session=True
            )

    def running(self) -> bool:
        """Whether its leader lives, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: its sockets stay open and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Ends a freeze."""
        self._signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Any signal to the leader."""
        if self._process is not None:
            self._process.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM to the leader only."""
        if self._process is not None:
            self._process.terminate()

    def wait(self, seconds: float) -> int:
        """The exit status. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(seconds)

    @property
    def pid(self) -> int:
        """The leader's process id."""
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        """Everything it has written."""
        return self._log.read_text()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def engine(name: str, address: str, port: int, folder: Path, http: str = "2") -> Server:
    """An engine stand-in; `http` is `2` (h2c) or `1`."""
    here = Path(__file__).parent
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--http", http]
    command += ["--host", address, "--port", str(port), "--no-ws", "--log-level", "warning"]
    command += ["--working-dir", str(here), "engine_stand_in:app"]
    return Server(command, folder / f"engine-{name}.log", {"HOLDFAST_ENGINE": name})


def cpu_engine(name: str, address: str, port: int, folder: Path, model: Path, flags: Sequence[str] = ()) -> Server:
    """A real engine with a real model, slow enough to be disturbed."""
    command = [sys.executable, "-m", "holdfast_engine", "serve", "--served-name", "llama", "--model", str(model)]
    command += ["--host", address, "--port", str(port), "--step-interval", PACE, *flags]
    return Server(command, folder / f"engine-{name}.log")


def vllm(name: str, address: str, port: int, folder: Path) -> Server:
    """What speaks as vLLM does, without the shim."""
    command = [sys.executable, str(Path(__file__).parents[1] / "engine" / "vllm_stand_in.py")]
    command += ["--served-model-name", "llama", "--host", address, "--port", str(port), "--step-interval", PACE]
    return Server(command, folder / f"engine-{name}.log")


def relay(directory: Path, listen: str, *flags: str, env: dict[str, str] | None = None) -> Server:
    """The product's own command that relays streams."""
    command = [sys.executable, "-m", "holdfast_gateway", "relay", "--dir", str(directory), "--listen", listen]
    command += ["--relay-port", str(RELAY_PORT), *flags]
    return Server(command, directory / "relay.log", env)


def limiter(directory: Path, listen: str, *flags: str) -> Server:
    """The product's own command that counts for all gateways."""
    command = [sys.executable, "-m", "holdfast_gateway", "limits", "--dir", str(directory)]
    command += ["--limits", f"{listen}:{LIMITER_PORT}", "--listen", listen, *flags]
    return Server(command, directory / "limits.log")


def gateway(directory: Path, admin_port: int, *flags: str, env: dict[str, str] | None = None) -> Server:
    """The product's own command that runs Envoy from a directory."""
    command = [sys.executable, "-m", "holdfast_gateway", "envoy", "--dir", str(directory)]
    command += ["--admin-port", str(admin_port), "--concurrency", "1", *flags]
    return Server(command, directory / "envoy.log", env)


def ledger(directory: Path, listen: str, admin_port: int, sink: str, *flags: str) -> Server:
    """The product's own command that ships the records of the gateway in a directory."""
    command = [sys.executable, "-m", "holdfast_gateway", "ledger", "--ledger", str(directory / "ledger")]
    command += ["--listen", listen, "--admin-port", str(admin_port), "--sink", sink, *flags]
    return Server(command, directory / "ledger.log")
