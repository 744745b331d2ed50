"""Three control planes of their own with an operator process beside each, and stand-ins for the regions' gateways."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from kubernetes import client
from kubernetes.config import new_client_from_config

from holdfast.api import names
from holdfast.api.crd import DEFINITIONS, definition
from holdfast.cli.join import Cluster, join
from holdfast.cli.server import Server as ApiServer
from holdfast.errors import HoldfastError
from holdfast_chaos.errors import tail
from holdfast_testbed.progress import Progress
from holdfast_testbed.testbed import Region, Testbed

from . import gateway_stand_in
from .benchmark import BenchError
from .figures import Series, parse_metrics
from .follow import NAMESPACE, Follower
from .servers import Server, answers

BED = "holdfast-bench-fleet"
HOST = "127.0.0.1"
MANAGER = "holdfast-bench"
POLL_SECONDS = 0.02
WAIT_SECONDS = 60.0


def wait_for(what: str, check: Callable[[], Any], seconds: float = WAIT_SECONDS) -> float:
    """Return the moment when `check` first gave something true; errors of a server count as "not yet"."""
    end = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < end:
        try:
            if check():
                return time.monotonic()
        except (HoldfastError, OSError) as error:
            last = error
        time.sleep(POLL_SECONDS)
    raise BenchError(f"{what}: not within {seconds:g} s{f'; last error: {last}' if last else ''}.")


class Operator:
    """One region's operator, with the terms of election that it has by default."""

    def __init__(self, region: Region, log: Path) -> None:
        self.region = region.name
        self._metrics_port, self._health_port = free_port(), free_port()
        self._log = log
        self._command = [
            *(sys.executable, "-m", "holdfast", "operator", f"--region={region.name}"),
            *(f"--kubeconfig={region.kubeconfig}", "--engine-image=openvino=holdfast/engine:1"),
            *(f"--metrics-port={self._metrics_port}", f"--health-port={self._health_port}", "--log-level=warning"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The running process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it is healthy."""
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        url = f"http://{HOST}:{self._health_port}/healthz"

        def healthy() -> bool:
            if not self.runs:
                raise BenchError(f"The operator of {self.region} ended; its log ends with:\n{tail(self._log)}")
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)

        wait_for(f"health of the operator of {self.region}", healthy)

    def end(self, how: signal.Signals) -> float:
        """Send a signal that ends it; the moment before it was sent."""
        assert self._process is not None
        at = time.monotonic()
        self._process.send_signal(how)
        return at

    def join(self) -> None:
        """Wait until it has ended; killed if it takes too long."""
        assert self._process is not None
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def metrics(self) -> Series:
        """All its metrics now."""
        with urllib.request.urlopen(f"http://{HOST}:{self._metrics_port}/metrics", timeout=10) as answer:
            return parse_metrics(answer.read().decode())

    @property
    def leads(self) -> bool:
        """Whether it says so itself."""
        try:
            return self.runs and self.metrics()["holdfast_leading"] == 1
        except OSError:
            return False


@dataclass(frozen=True)
class Fleet:
    """All of it."""

    servers: dict[str, ApiServer]
    operators: dict[str, Operator]
    gateways: dict[str, int]
    """Region → port of its gateway's stand-in."""
    follower: Follower

    def leader(self) -> str:
        """The region whose operator leads; waits until there is one."""
        wait_for("a leader", lambda: any(each.leads for each in self.operators.values()))
        return next((name for name, each in self.operators.items() if each.leads), "") or self.leader()

    def tell(self, region: str, what: str) -> None:
        """Tell a gateway's stand-in to hang, or to recover."""
        with urllib.request.urlopen(f"http://{HOST}:{self.gateways[region]}{what}", timeout=5) as answer:
            answer.read()

    def metrics(self) -> dict[str, Series]:
        """Region → its operator's metrics."""
        return {name: each.metrics() for name, each in self.operators.items()}

    def apply(self, region: str, name: str, most: int) -> None:
        """As `kubectl apply` of a service in one region; edits differ in `most` replicas."""
        spec = {
            "model": {"name": name, "source": "file:///models/m.gguf"},
            "engine": {"type": "openvino"},
            "defaults": {"replicas": {"min": 1, "max": most}},
            "regions": [{"name": each} for each in self.servers],
            "failover": {"healthyAfter": "2s", "failback": {"steps": [50], "hold": "2s"}},
        }
        meta = {"name": name, "namespace": NAMESPACE}
        whole = {"apiVersion": names.API_VERSION, "kind": "LLMService", "metadata": meta, "spec": spec}
        self.servers[region].apply(whole, MANAGER)


@contextmanager
def open_fleet(progress: Progress) -> Iterator[Fleet]:
    """Start everything; whatever happens, end and remove all of it."""
    with ExitStack() as stack:
        stack.enter_context(_ended_by_sigterm())
        bed = Testbed(BED, progress)
        if bed.exists:
            bed.down()  # of a run that was killed; its objects would be measured too
        stack.callback(bed.down)
        regions = {each.name: each for each in bed.up(regions=3, control_plane_only=True)}
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-bench-")))
        gateways = {name: free_port() for name in regions}
        for name, port in gateways.items():
            server = Server(f"gateway stand-in of {name}", _command(port), logs / f"gateway-{name}")
            stack.enter_context(server).wait_until(partial(answers, f"http://{HOST}:{port}/v1/completions", b"{}"))
        with progress.step("joining the regions"):
            servers = {name: ApiServer.open(name, each.kubeconfig) for name, each in regions.items()}
            _join(regions, servers, gateways)
        follower = Follower({name: each.kubeconfig for name, each in regions.items()})
        stack.callback(follower.close)
        operators = {name: Operator(each, logs / f"operator-{name}") for name, each in regions.items()}
        fleet = Fleet(servers, operators, gateways, follower)
        with progress.step("starting the operators"):
            for each in operators.values():
                stack.callback(each.close)
                each.start()
            fleet.leader()
        yield fleet


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


def _join(regions: dict[str, Region], servers: dict[str, ApiServer], gateways: dict[str, int]) -> None:
    for region in regions.values():
        with new_client_from_config(str(region.kubeconfig)) as api:
            extensions: Any = client.ApiextensionsV1Api(api)  # takes the plain object too
            for each in DEFINITIONS:
                extensions.create_custom_resource_definition(definition(each))
    clusters = [Cluster(each.name, each.kubeconfig, gateway_address=HOST) for each in regions.values()]
    wait_for("joining", lambda: join(clusters))
    for server in servers.values():
        for name, port in gateways.items():
            spec = {"gateway": {"address": HOST, "peerPort": port}}
            whole = {"apiVersion": names.API_VERSION, "kind": "Region", "metadata": {"name": name}, "spec": spec}
            server.apply(whole, MANAGER)


def _command(port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "granian", "--interface", "asgi", "--http", "1", "--no-ws"),
        *("--host", HOST, "--port", str(port), "--log-level", "warning", f"{gateway_stand_in.__name__}:app"),
    ]


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends this process as Ctrl-C does, so that all is cleaned up."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
