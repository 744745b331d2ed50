"""A gateway that knows many services: a real API server with a Route for each, a real agent, a real Envoy."""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from kubernetes import client
from kubernetes.config import new_client_from_config

from holdfast.api.names import COMPONENT_LABEL, MANAGED_BY_LABEL, MANAGER, ROUTE_COMPONENT, ROUTE_KEY
from holdfast.api.route import RegionTarget, Route
from holdfast_chaos.edge import HOST, free_ports
from holdfast_gateway import files
from holdfast_gateway.options import Options
from holdfast_gateway.render.files import service_file
from holdfast_testbed.progress import Progress
from holdfast_testbed.testbed import Testbed

from .benchmark import BenchError
from .servers import Server
from .ways import PATH, gateway_command, regional_options

BED = "holdfast-bench-routes"
NAMESPACE = "default"
WRITERS = 8
UNKNOWN = 404
POLL_SECONDS = 0.002
CHANGE_SECONDS = 120.0
START_SECONDS = 300.0


@dataclass(frozen=True)
class Change:
    """One edit of a Route. Seconds since before the edit was sent."""

    written: float
    """Until the agent had moved the service's new file into place."""
    effective: float
    """Until Envoy answered by it."""


@dataclass
class Gateway:
    """What runs."""

    api: client.CoreV1Api
    options: Options
    folder: Path
    agent: psutil.Process
    server: psutil.Process
    """Runs Envoy and serves it what the agent writes."""
    envoy: psutil.Process
    started: float
    """Seconds from the start of agent and Envoy until Envoy knew the last service."""
    routes: int

    def change(self, number: int, version: int) -> Change:
        """Give a service another model name, and wait until Envoy knows it. Raises BenchError."""
        model = model_of(number, version)
        begun, wall = time.monotonic(), time.time()
        self.api.patch_namespaced_config_map(name_of(number), NAMESPACE, {"data": data(self.options, number, version)})
        effective = wait_known(self.options.client_port, model, CHANGE_SECONDS) - begun
        file = self.folder / service_file(f"{NAMESPACE}/{service_of(number)}")
        return Change(file.stat().st_mtime - wall, effective)


@contextmanager
def open_gateway(wanted: int, progress: Progress) -> Iterator[Gateway]:
    """Start everything with so many services; whatever happens, end and remove all of it. Raises BenchError."""
    with ExitStack() as stack:
        bed = Testbed(BED, progress)
        if bed.exists:
            bed.down()  # of a run that was killed
        stack.callback(bed.down)
        [region] = bed.up(regions=1, control_plane_only=True)
        api = client.CoreV1Api(stack.enter_context(new_client_from_config(str(region.kubeconfig))))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-bench-")))
        options = regional_options(free_ports(4))
        with progress.step(f"writing {wanted} routes"), ThreadPoolExecutor(WRITERS) as writers:
            list(writers.map(lambda number: _create(api, options, number), range(wanted)))
        files.initialise(folder / "files", options)
        ports = ("client", "peer", "metrics", "admin")
        given = [f"--{port}-port={getattr(options, f'{port}_port')}" for port in ports]
        agent = [sys.executable, "-m", "holdfast_gateway", "agent", f"--dir={folder / 'files'}", f"--listen={HOST}"]
        agent += [f"--kubeconfig={region.kubeconfig}", *given]
        with progress.step("starting agent and Envoy"):
            begun = time.monotonic()
            running = stack.enter_context(Server("agent", agent, folder / "agent.log"))
            command = gateway_command(folder / "files", options)
            beside = stack.enter_context(Server("Envoy", command, folder / "envoy.log"))
            asking = http.client.HTTPConnection(HOST, options.client_port, timeout=10)
            beside.wait_until(lambda: _all_known(asking, wanted), START_SECONDS)
            asking.close()
            started = time.monotonic() - begun
        server = psutil.Process(beside.pid)
        [envoy] = server.children()
        agent_process = psutil.Process(running.pid)
        yield Gateway(api, options, folder / "files", agent_process, server, envoy, started, wanted)


def data(options: Options, number: int, version: int) -> dict[str, str]:
    """The content of a service's ConfigMap; versions differ in the name of the model."""
    region = RegionTarget(name="here", address=HOST, peer_port=options.peer_port)
    route = Route(
        namespace=NAMESPACE, service=service_of(number), model=model_of(number, version), region="here",
        regions=(region,),
    )  # fmt: skip
    return {ROUTE_KEY: json.dumps(route.wire())}


def name_of(number: int) -> str:
    """Name of a service's ConfigMap."""
    return f"{service_of(number)}-route"


def service_of(number: int) -> str:
    """Name of a service."""
    return f"bench-{number:04}"


def model_of(number: int, version: int) -> str:
    """Name of a service's model."""
    return f"bench-{number:04}-{version}"


def wait_known(port: int, model: str, seconds: float) -> float:
    """The moment when Envoy no longer answers that there is no such model. Raises BenchError."""
    end = time.monotonic() + seconds
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        while time.monotonic() < end:
            if _known(connection, model):
                return time.monotonic()
            time.sleep(POLL_SECONDS)
    finally:
        connection.close()
    raise BenchError(f"Envoy does not know the model {model} after {seconds:g} s.")


def _all_known(connection: http.client.HTTPConnection, routes: int) -> bool:
    """Whether the last one is there, and all others."""
    if not _known(connection, model_of(routes - 1, 0)):
        return False
    connection.request("GET", "/v1/models")
    response = connection.getresponse()
    text = response.read()
    return response.status == 200 and len(json.loads(text)["data"]) == routes


def _known(connection: http.client.HTTPConnection, model: str) -> bool:
    try:
        connection.request("POST", PATH, json.dumps({"model": model}), {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return False
    return response.status != UNKNOWN


def _create(api: client.CoreV1Api, options: Options, number: int) -> None:
    labels = {MANAGED_BY_LABEL: MANAGER, COMPONENT_LABEL: ROUTE_COMPONENT}
    body: Any = {"metadata": {"name": name_of(number), "labels": labels}, "data": data(options, number, 0)}
    api.create_namespaced_config_map(NAMESPACE, body)
