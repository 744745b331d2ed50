"""Three real API servers, an operator process beside each, and stand-ins for the gateways that they observe."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from holdfast.api import names
from holdfast.api.traffic import TRAFFIC_PATH
from holdfast.cli.server import Server, path
from holdfast.errors import ClusterError, HoldfastError
from holdfast_testbed.testbed import Region, Testbed

DEADLINE = 120.0
TERMS = ("--lease-seconds=6", "--renew-deadline-seconds=4", "--retry-seconds=1")


def wait_for(what: str, check: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """Polls until `check` gives something true; errors count as "not yet"."""
    until = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < until:
        try:
            if found := check():
                return found
        except (HoldfastError, OSError) as error:
            last = error
        time.sleep(0.1)
    pytest.fail(f"{what} did not happen within {seconds:g} s; last error: {last}")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Mood(StrEnum):
    """How a gateway and the engines behind it behave."""

    WELL = "well"
    HUNG = "hung"
    """Health checks pass, and no token comes."""
    FAILING = "failing"
    """No engine is healthy."""
    GONE = "gone"
    """Connections end without an answer."""


class GatewayStandIn:
    """Answers an observer's questions as a region's gateway would."""

    def __init__(self) -> None:
        self.mood = Mood.WELL
        self.traffic: dict[str, dict[str, float]] = {}
        """What it tells of users' requests, by service."""
        self.port = free_port()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == TRAFFIC_PATH:
                    self._answer(200, json.dumps(outer.traffic).encode())
                    return
                self._answer(503 if outer.mood is Mood.FAILING and self.path != "/ready" else 200)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", "0")))
                if outer.mood is Mood.HUNG:
                    time.sleep(8)
                self._answer(503 if outer.mood is Mood.FAILING else 200)

            def _answer(self, status: int, body: bytes = b"") -> None:
                if outer.mood is Mood.GONE:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Operator:
    """One region's operator as a process."""

    def __init__(self, region: Region, log: Path) -> None:
        self.region = region.name
        self.metrics_port, self.health_port = free_port(), free_port()
        self.log = log
        self._arguments = [
            *(sys.executable, "-m", "holdfast", "operator", f"--region={region.name}", *TERMS),
            *(f"--kubeconfig={region.kubeconfig}", "--engine-image=openvino=holdfast/engine:1"),
            *(f"--metrics-port={self.metrics_port}", f"--health-port={self.health_port}"),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        if self.runs:
            return
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(self._arguments, stdout=out, stderr=out)
        url = f"http://127.0.0.1:{self.health_port}/healthz"
        wait_for("the operator's health", lambda: urllib.request.urlopen(url, timeout=5).read())

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            return -1

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def metric(self, name: str, label: str = "") -> float:
        """Sum of a metric over its series that carry this text."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        found = (line for line in lines if line.partition("{")[0].partition(" ")[0] == name and label in line)
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)


@dataclass
class World:
    """All of it."""

    bed: Testbed
    regions: dict[str, Region]
    servers: dict[str, Server]
    operators: dict[str, Operator]
    gateways: dict[str, GatewayStandIn]
    created: list[str] = field(default_factory=list)

    def spec(self, name: str, **changes: Any) -> dict[str, Any]:
        return {
            "model": {"name": name, "source": "file:///models/m.gguf"},
            "engine": {"type": "openvino"},
            "defaults": {"replicas": {"min": 1, "max": 3}},
            "regions": [{"name": each} for each in self.regions],
            "failover": {"healthyAfter": "2s", "failback": {"steps": [50], "hold": "2s"}},
            **changes,
        }

    def apply(self, region: str, name: str, **changes: Any) -> None:
        """As `kubectl apply` in one region."""
        self.created.append(name)
        manifest = {"metadata": {"name": name, "namespace": "default"}, "spec": self.spec(name, **changes)}
        whole = {"apiVersion": names.API_VERSION, "kind": "LLMService", **manifest}
        self.servers[region].apply(whole, "test-user")

    def service(self, region: str, name: str) -> dict[str, Any] | None:
        return self.servers[region].find(path("LLMService", "default", name))

    def plan(self, region: str, name: str) -> dict[str, Any] | None:
        found = self.servers[region].find(path("RegionPlan", "default", name))
        return found and found["spec"]

    def plans(self, name: str, only: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
        """The plans of all regions that can be asked; fails like an API server if one has none."""
        found = {region: self.plan(region, name) for region in only or self.regions}
        if not all(found.values()):
            raise ClusterError(f"no plan yet in {[each for each, plan in found.items() if not plan]}")
        return {region: plan for region, plan in found.items() if plan}

    def traffic(self, region: str, name: str) -> dict[str, tuple[str, int]]:
        plan = self.plan(region, name) or {"traffic": []}
        return {each["region"]: (each["state"], each["percent"]) for each in plan["traffic"]}

    def condition(self, region: str, name: str, kind: str) -> dict[str, Any]:
        service = self.service(region, name) or {}
        return next((each for each in service.get("status", {}).get("conditions", ()) if each["type"] == kind), {})

    def region_condition(self, at: str, of: str, kind: str = "Reachable") -> dict[str, Any]:
        found = self.servers[at].get(path("Region", "", of))
        return next((each for each in found.get("status", {}).get("conditions", ()) if each["type"] == kind), {})

    def leader(self) -> tuple[str, int] | None:
        """(region, epoch) of the operator that says of itself that it leads."""
        for region, operator in self.operators.items():
            try:
                if operator.runs and operator.metric("holdfast_leading"):
                    return region, int(operator.metric("holdfast_epoch"))
            except OSError:
                continue
        return None

    def wait_leader(self) -> tuple[str, int]:
        found: tuple[str, int] = wait_for("a leader", self.leader)
        return found

    def wait_planned(self, name: str, number: int | None = None, only: tuple[str, ...] = ()) -> None:
        """Until every region acts on a plan for the latest edit."""

        def settled() -> bool:
            plans = self.plans(name, only)
            wanted = all(number is None or plan["number"] == number for plan in plans.values())
            return wanted and all(self._acts_on_its_plan(region, name) for region in plans)

        wait_for(f"plans for {name}", settled)

    def _acts_on_its_plan(self, region: str, name: str) -> bool:
        """The condition alone may be that of the plan before."""
        plan = self.servers[region].get(path("RegionPlan", "default", name))
        acted = (self.service(region, name) or {}).get("status", {}).get("plan", {})
        current = acted.get("generation") == plan["metadata"]["generation"]
        return current and self.condition(region, name, "Planned").get("reason") == "PlanCurrent"

    def quiet(self) -> bool:
        """Whether nobody writes anything but Leases for some seconds."""
        before = self._versions()
        time.sleep(4)
        return before == self._versions()

    def _versions(self) -> list[str]:
        return [
            each["metadata"]["resourceVersion"]
            for server in self.servers.values()
            for kind in ("LLMService", "RegionPlan", "Region")
            for each in server.list(kind)
        ]
