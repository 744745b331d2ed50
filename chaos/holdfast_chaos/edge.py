"""Starts an edge gateway on this machine, in front of all regions, and ends it.

The edge is the product's own command; the demo's clients ask it as they would ask a service's public address.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType

from holdfast_testbed.bare import precedence

from .client import REGION_HEADER
from .errors import EdgeError, tail

HOST = "127.0.0.1"
REACH_SECONDS = 120.0
ASK_SECONDS = 5.0
PAUSE_SECONDS = 0.1
STOP_SECONDS = 10.0


class Edge:
    """One edge gateway; leaving it ends its processes and removes its files."""

    def __init__(self, kubeconfigs: Sequence[Path], flags: Sequence[str] = ()) -> None:
        """`flags` are the product's own, such as `--peer-tls`."""
        self._kubeconfigs = kubeconfigs
        self._flags = flags
        self._port, self._metrics_port, self._admin_port, *self._relay_ports = free_ports(5)
        self.url = f"http://{HOST}:{self._port}"

    def __enter__(self) -> Edge:
        self._folder = tempfile.TemporaryDirectory(prefix="holdfast-edge-")
        self._log = Path(self._folder.name) / "edge.log"
        command = [sys.executable, "-m", "holdfast_gateway", "run", "--role", "edge", "--listen", HOST]
        command += ["--dir", str(Path(self._folder.name) / "envoy"), "--client-port", str(self._port)]
        command += ["--metrics-port", str(self._metrics_port), "--admin-port", str(self._admin_port)]
        relay, outbound = map(str, self._relay_ports)
        command += ["--relay-port", relay, "--outbound-port", outbound, "--relay-status-port", "0"]
        command += ["--settle", "0", "--drain", "1", "--concurrency", "1", *self._flags]
        for kubeconfig in self._kubeconfigs:
            command += ["--kubeconfig", str(kubeconfig)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        precedence.of_daemon(self._process.pid)  # it stands for a machine of its own
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._process.terminate()
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._folder.cleanup()

    def wait_for_regions(self, model: str, wanted: Collection[str], update: Callable[[str], None]) -> None:
        """Return when an engine of every region has answered through the edge; EdgeError if that takes too long."""
        seen: set[str] = set()
        answer = "none"
        end = time.monotonic() + REACH_SECONDS
        while not seen.issuperset(wanted):
            if self._process.poll() is not None:
                raise EdgeError(f"The edge gateway ended; its log ends with:\n{tail(self._log)}")
            if time.monotonic() > end:
                missing = ", ".join(sorted(set(wanted) - seen))
                raise EdgeError(
                    f"No answer from {missing} through the edge within {REACH_SECONDS:.0f} s (last answer: {answer}); "
                    f"its log ends with:\n{tail(self._log)}"
                )
            region, answer = self._ask(model)
            seen |= {region} if region else set()
            update(f"{len(seen)} of {len(wanted)} regions answer")
            time.sleep(PAUSE_SECONDS)

    def _ask(self, model: str) -> tuple[str, str]:
        """The region that answered one short request (empty if none did), and the answer in a few words."""
        body = {"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
        request = urllib.request.Request(
            f"{self.url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=ASK_SECONDS) as response:
                return response.headers.get(REGION_HEADER, ""), "status 200"
        except urllib.error.HTTPError as error:
            return "", f"status {error.code}"
        except OSError as error:
            return "", str(error)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on now."""
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
