"""What the end-to-end tests do with the regions."""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import pytest
from kubernetes import client
from kubernetes.config import new_client_from_config

from holdfast.api import names
from holdfast_chaos.client import LoadSpec
from holdfast_chaos.edge import Edge
from holdfast_chaos.load_process import LoadProcess
from holdfast_chaos.measure import Measurement, busiest_region, measure
from holdfast_chaos.records import StreamOutcome
from holdfast_chaos.service import RegionalService, Service, wait_until_serving
from holdfast_testbed import state
from holdfast_testbed.bare.components import enter_network
from holdfast_testbed.bare.site import Site, bare_site
from holdfast_testbed.commands import run
from holdfast_testbed.errors import CommandError
from holdfast_testbed.testbed import Testbed

DEADLINE = 180.0
RATE, STREAMS = 10, 3
"""Requests a second and streams in flight: a fifth of the demo's, as the machine carries three regions beside them."""
BEFORE_SECONDS, AFTER_SECONDS = 4.0, 3.0
"""How long load runs before a test's body begins and after it has ended."""
LONGEST_SECONDS = 600.0
METRICS_PORT = 9090
"""The operator's, in its Pod."""


def wait_for(what: str, check: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """Polls until `check` gives something true; errors of API server or network count as "not yet"."""
    until = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < until:
        try:
            if found := check():
                return found
        except (client.ApiException, CommandError, OSError) as error:
            last = error
        time.sleep(0.2)
    pytest.fail(f"{what} did not happen within {seconds:g} s; last error: {last}")


class Load:
    """Load through the edge for as long as the body lasts; leaving it waits for the last answer.

    A test says `with healthy.load() as load:` and afterwards asserts on `load.seen`.
    """

    seen: Measurement

    def __init__(self, spec: LoadSpec) -> None:
        self._process = LoadProcess(spec)

    def __enter__(self) -> Load:
        self._process.__enter__()
        try:
            self._process.wait_begun()
            self.goes_on(BEFORE_SECONDS)
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.goes_on(AFTER_SECONDS)
                lasted = self._process.elapsed()
                self._process.finish()
                self.seen = measure(self._process.result())
                assert self.seen.requests >= RATE * (lasted - 1), "the load did not keep its rate"
        finally:
            self._process.stop()

    def goes_on(self, seconds: float) -> None:
        """Return when it has run for so much longer; it must not have ended by itself."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self._process.running, "the load ended"
            time.sleep(0.1)

    def busiest(self, leave_out: str = "") -> str:
        """The region that answers most, or most of the others."""
        records = [each for each in list(self._process.records) if each.region != leave_out]
        region = busiest_region(records, self._process.elapsed())
        assert region is not None, "no answer named its region in the last seconds"
        return region

    def assert_nothing_failed(self) -> None:
        """Every request was answered rightly, and every stream completed."""
        assert self.seen.requests_failed == 0, self.seen.failures
        assert self.seen.streams[StreamOutcome.COMPLETED] > 0
        assert sum(self.seen.streams.values()) == self.seen.streams[StreamOutcome.COMPLETED], self.seen.stream_failures


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
        wait_for("every region's whole share", self.steady)
        self.edge.wait_for_regions(self.service.model, self.names, lambda _: None)

    def load(self) -> Load:
        """Load through the edge."""
        return Load(
            LoadSpec(url=self.edge.url, model=self.service.model, rate=RATE, seconds=LONGEST_SECONDS, streams=STREAMS)
        )

    def drained_by(self, observer: str, region: str) -> bool:
        """Whether the plan of one region gives another one no traffic."""
        return any(each["region"] == region and each["state"] == "Drained" for each in self.plan(observer)["traffic"])

    def steady(self) -> bool:
        """Whether every region says that each has its whole share."""
        return all(map(self._steady, self.regions))

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
        spec: dict[str, Any] = self.plan_object(region)["spec"]
        return spec

    def plan_object(self, region: str) -> dict[str, Any]:
        """The same with its metadata."""
        with self.api(region) as api:
            found: dict[str, Any] = client.CustomObjectsApi(api).get_namespaced_custom_object(
                names.GROUP, names.VERSION, self.service.namespace, "regionplans", self.service.name
            )
        return found

    def epochs(self) -> set[int]:
        """The epochs of all regions' plans."""
        return {self.plan(region)["epoch"] for region in self.names}

    def verdict(self, observer: str, region: str) -> str:
        """What one region's observer holds of the service in another."""
        with self.api(observer) as api:
            found: Any = client.CustomObjectsApi(api).get_cluster_custom_object(
                names.GROUP, names.VERSION, "regions", region
            )
        key = f"{self.service.namespace}/{self.service.name}"
        seen = found.get("status", {}).get("services", ())
        return next((str(each["verdict"]) for each in seen if each["service"] == key), "")

    def has_quorum(self, region: str) -> bool:
        """Whether a region's operator says that it reaches a majority; asked from inside of the region."""
        path = f"/apis/{names.API_VERSION}/regions/{region}"
        found = json.loads(self.kubectl(region, "--request-timeout=5s", "get", "--raw", path))
        [quorum] = [each for each in found["status"]["conditions"] if each["type"] == "Quorum"]
        return bool(quorum["status"] == "True")

    def leads(self, region: str) -> bool:
        """Whether a region's operator says that it leads; asked from inside of the region."""
        path = f"/api/v1/namespaces/{names.NAMESPACE}/pods?labelSelector=app.kubernetes.io%2Fname%3Dholdfast-operator"
        [pod] = json.loads(self.kubectl(region, "--request-timeout=5s", "get", "--raw", path))["items"]
        url = f"http://{pod['status']['podIP']}:{METRICS_PORT}/metrics"
        lines = self._inside(region, "curl", "--silent", "--fail", "--max-time", "5", url).splitlines()
        return float(next(line for line in lines if line.startswith("holdfast_leading ")).split()[1]) == 1

    def kubectl(self, region: str, *arguments: str) -> str:
        """What kubectl prints."""
        return self._inside(region, "kubectl", *arguments)

    def _inside(self, region: str, *command: str) -> str:
        """Run a command where the region's own link does not matter."""
        environment = {**os.environ, "KUBECONFIG": str(self.bed.kubeconfig(region))}
        return run([*enter_network(self._sites()[region]), *command], env=environment)

    @contextmanager
    def backbone_cut(self) -> Iterator[None]:
        """While it lasts no region reaches another; this machine, with the edge on it, reaches all."""
        links = [site.addresses.link for site in self._sites().values()]

        def isolate(state: str) -> None:
            for link in links:
                run(["bridge", "link", "set", "dev", link, "isolated", state])

        try:
            isolate("on")
            yield
        finally:
            isolate("off")

    def _sites(self) -> dict[str, Site]:
        bed = state.load_bed(self.bed.name)
        assert bed is not None
        if bed.provider != "bare":
            pytest.skip("regions that are no network namespaces of this machine cannot be parted")
        return {name: bare_site(bed, name, Path()) for name in bed.regions}

    def operator_pod(self, region: str) -> Any:
        labels = "app.kubernetes.io/name=holdfast-operator"
        with self.api(region) as api:
            [pod] = client.CoreV1Api(api).list_namespaced_pod(names.NAMESPACE, label_selector=labels).items
            return pod

    def engine_pods(self, region: str) -> list[Any]:
        labels = f"serving.holdfast.dev/service={self.service.name}"
        with self.api(region) as api:
            return list(client.CoreV1Api(api).list_namespaced_pod("default", label_selector=labels).items)

    def ready_engine_pods(self, region: str) -> list[Any]:
        """The engines that serve and stay: one being deleted may have ended already, whatever its status says."""
        pods = [pod for pod in self.engine_pods(region) if not pod.metadata.deletion_timestamp]
        return [pod for pod in pods if any(each.ready for each in pod.status.container_statuses or ())]

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
    known = [status.container_id for status in pod.status.container_statuses or () if status.container_id]
    containers = [each.rpartition("/")[2] for each in known]
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
        with contextlib.suppress(psutil.NoSuchProcess):  # its parent was killed before, and took it along
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
