"""What the end-to-end tests do with the regions."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from kubernetes import client
from kubernetes.config import new_client_from_config

from holdfast.api import names
from holdfast_chaos.client import LoadSpec
from holdfast_chaos.edge import Edge
from holdfast_chaos.experiment import Plan, Regions, run_experiment
from holdfast_chaos.load_process import LoadProcess
from holdfast_chaos.measure import Fault, Measurement, measure
from holdfast_chaos.service import RegionalService, Service, wait_until_serving
from holdfast_testbed.testbed import Testbed

DEADLINE = 180.0
RATE, STREAMS = 25, 5
"""Requests a second and streams in flight: half of the demo's, as the machine carries three regions beside them."""


def wait_for(what: str, check: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """Polls until `check` gives something true; errors of API server or network count as "not yet"."""
    until = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < until:
        try:
            if found := check():
                return found
        except (client.ApiException, OSError) as error:
            last = error
        time.sleep(0.2)
    pytest.fail(f"{what} did not happen within {seconds:g} s; last error: {last}")


@dataclass
class World:
    """Three regions, an edge, and the example service in all of them."""

    bed: Testbed
    edge: Edge
    service: Service
    regions: list[RegionalService]

    @property
    def names(self) -> list[str]:
        return [region.name for region in self.bed.regions]

    def api(self, region: str) -> client.ApiClient:
        return new_client_from_config(str(self.bed.kubeconfig(region)))

    def wait_all_serve(self) -> None:
        """Until every region serves with its whole share, and an answer of each has come through the edge."""
        wait_until_serving(self.regions, lambda _: None, DEADLINE)
        wait_for("every region's whole share", lambda: all(map(self._steady, self.regions)))
        self.edge.wait_for_regions(self.service.model, self.names, lambda _: None)

    def under_load(
        self, kind: str, regions: Regions, *, fault_at: float = 8, heal_at: float = 20, seconds: float = 28
    ) -> tuple[Measurement, Fault]:
        """Load through the edge with one fault in it; what the clients saw."""
        spec = LoadSpec(url=self.edge.url, model=self.service.model, rate=RATE, seconds=seconds, streams=STREAMS)
        with LoadProcess(spec) as load:
            fault = run_experiment(load, Plan(kind, fault_at, heal_at), regions, lambda _: None, lambda _: None)
            return measure(load.result(), fault), fault

    @staticmethod
    def _steady(region: RegionalService) -> bool:
        return any(each.type == "Diverted" and each.reason == "Steady" for each in region.conditions())

    def lease(self, region: str) -> tuple[str, int]:
        """(region that leads, epoch) by one region's Lease."""
        with self.api(region) as api:
            lease = client.CoordinationV1Api(api).read_namespaced_lease(names.LEASE, names.NAMESPACE)
        return lease.spec.holder_identity.rpartition("_")[0], int(lease.metadata.annotations[names.EPOCH_ANNOTATION])

    def leader(self) -> tuple[str, int]:
        """(region that leads, epoch), once all regions agree on it."""

        def agreed() -> tuple[str, int] | None:
            [*found] = {self.lease(region) for region in self.names}
            return found[0] if len(found) == 1 and found[0][0] else None

        result: tuple[str, int] = wait_for("one leader by all Leases", agreed)
        return result

    def plan(self, region: str) -> dict[str, Any]:
        """The plan of the service in one region."""
        with self.api(region) as api:
            found: Any = client.CustomObjectsApi(api).get_namespaced_custom_object(
                names.GROUP, names.VERSION, self.service.namespace, "regionplans", self.service.name
            )
        spec: dict[str, Any] = found["spec"]
        return spec

    def operator_pod(self, region: str) -> Any:
        labels = "app.kubernetes.io/name=holdfast-operator"
        with self.api(region) as api:
            [pod] = client.CoreV1Api(api).list_namespaced_pod(names.NAMESPACE, label_selector=labels).items
            return pod

    def engine_pods(self, region: str) -> list[Any]:
        labels = f"serving.holdfast.dev/service={self.service.name}"
        with self.api(region) as api:
            return list(client.CoreV1Api(api).list_namespaced_pod("default", label_selector=labels).items)

    def gateway_pod(self, region: str) -> Any:
        with self.api(region) as api:
            [pod] = (
                client.CoreV1Api(api)
                .list_namespaced_pod("holdfast-system", label_selector="app.kubernetes.io/name=holdfast-gateway")
                .items
            )
            return pod

    def ask(self, url: str, path: str = "/v1/completions", **fields: Any) -> tuple[int, str, dict[str, Any]]:
        """One request: status, region that answered, JSON."""
        body = {"model": self.service.model, "prompt": "Hello", "max_tokens": 3, **fields}
        request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.headers.get("x-holdfast-region", ""), json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("x-holdfast-region", ""), json.load(error)


def processes_of(pod: Any) -> list[psutil.Process]:
    """The processes of a Pod's containers, told by their cgroup; a Pod that runs has some."""
    containers = [status.container_id.rpartition("/")[2] for status in pod.status.container_statuses or ()]
    found = []
    for process in psutil.process_iter():
        try:
            cgroup = Path(f"/proc/{process.pid}/cgroup").read_text()
        except OSError:
            continue
        if any(container in cgroup for container in containers):
            found.append(process)
    assert found, f"no process of {pod.metadata.name} was found"
    return found


def kill_processes_of(pod: Any) -> None:
    """End the processes of a Pod's containers at once, as an out-of-memory kill would, and wait until they are gone."""
    processes = processes_of(pod)
    for process in processes:
        process.kill()
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE)
    assert not alive, f"processes of {pod.metadata.name} outlived SIGKILL: {alive}"


def api_server_of(address: str) -> psutil.Process:
    """The API server's process of the region with this address."""
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if command and command[0].endswith("kube-apiserver") and any(part.endswith(f"={address}") for part in command):
            return process
    pytest.fail(f"no API server runs at {address}")
