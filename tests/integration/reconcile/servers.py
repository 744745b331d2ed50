"""The API server and the operator as the tests use them."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from holdfast_testbed.testbed import Region, Testbed

GROUP, VERSION = "serving.holdfast.dev", "v1alpha1"
REGIONS = ("us-east", "eu-west")
METRICS, HEALTH = 19190, 19191
DEADLINE = 60.0


def wait_for(what: str, check: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """Polls until `check` gives something true; API errors count as "not yet"."""
    until = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < until:
        try:
            if found := check():
                return found
        except (client.ApiException, OSError) as error:
            last = error
        time.sleep(0.1)
    pytest.fail(f"{what} did not happen within {seconds:g} s; last error: {last}")


@dataclass
class Server:
    """The API server as the tests use it."""

    bed: Testbed
    region: Region
    api: client.ApiClient

    @property
    def custom(self) -> client.CustomObjectsApi:
        return client.CustomObjectsApi(self.api)

    @property
    def apps(self) -> client.AppsV1Api:
        return client.AppsV1Api(self.api)

    @property
    def core(self) -> client.CoreV1Api:
        return client.CoreV1Api(self.api)

    def create_region(self, name: str, address: str) -> None:
        body = {"kind": "Region", "metadata": {"name": name}, "spec": {"gateway": {"address": address}}}
        self.custom.create_cluster_custom_object(
            GROUP, VERSION, "regions", {"apiVersion": f"{GROUP}/{VERSION}", **body}
        )

    def create(self, name: str, **spec: Any) -> dict[str, Any]:
        """Creates a service in `default`; its model is named after it."""
        whole = {
            "model": {"name": name, "source": "file:///models/m.gguf"},
            "engine": {"type": "openvino"},
            "regions": [{"name": each} for each in REGIONS],
            **spec,
        }
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "LLMService", "metadata": {"name": name}, "spec": whole}
        created: dict[str, Any] = self.custom.create_namespaced_custom_object(
            GROUP, VERSION, "default", "llmservices", body
        )
        return created

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        self.custom.patch_namespaced_custom_object(GROUP, VERSION, "default", "llmservices", name, {"spec": spec})

    def read(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.custom.get_namespaced_custom_object(GROUP, VERSION, "default", "llmservices", name)
        return found

    def delete(self, name: str) -> None:
        self.custom.delete_namespaced_custom_object(GROUP, VERSION, "default", "llmservices", name)

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        conditions = self.read(name).get("status", {}).get("conditions", ())
        return next((each for each in conditions if each["type"] == kind), {})

    def wait_accepted(self, name: str, reason: str = "SpecAccepted") -> dict[str, Any]:
        """Until `Accepted` has this reason for the newest spec."""

        def check() -> dict[str, Any] | None:
            service = self.read(name)
            found = self.condition(name, "Accepted")
            current = found.get("observedGeneration") == service["metadata"]["generation"]
            return found if current and found["reason"] == reason else None

        result: dict[str, Any] = wait_for(f"{reason} of {name}", check)
        return result


class Operator:
    """The operator's process."""

    def __init__(self, region: Region, log: Path) -> None:
        self._arguments = [
            *(sys.executable, "-m", "holdfast", "operator", "--region=us-east"),
            *(f"--kubeconfig={region.kubeconfig}", "--engine-image=openvino=holdfast/engine:1"),
            *(f"--metrics-port={METRICS}", f"--health-port={HEALTH}"),
        ]
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(self._arguments, stdout=out, stderr=out)
        wait_for("the operator's health", lambda: fetch(f"http://127.0.0.1:{HEALTH}/healthz"))

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(30)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels."""
        lines = fetch(f"http://127.0.0.1:{METRICS}/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.partition("{")[0].partition(" ")[0] == name)


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: str = answer.read().decode()
        return text
