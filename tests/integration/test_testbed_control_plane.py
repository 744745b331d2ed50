"""One real region without a node: started, hurt, healed and removed without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast_testbed.bare.kubeapi import KubeApi
from holdfast_testbed.bare.kubernetes import BINARIES, binaries_folder
from holdfast_testbed.testbed import Testbed

NAME = "holdfast-selftest"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(
        not all((binaries_folder() / name).exists() for name in BINARIES),
        reason="Kubernetes is not built here yet; `holdfast-testbed up` does",
    ),
]


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    bed = Testbed(NAME)
    bed.up(regions=1, control_plane_only=True)
    yield bed
    bed.down()
    assert traces() == []


def traces() -> list[str]:
    """Everything on this machine that bears the testbed's name."""
    namespaces = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    found = [line for line in namespaces.splitlines() if line.startswith(NAME)]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if NAME in line]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text()
        except OSError:
            continue
        if f"/{NAME}/" in command:
            found.append(command)
    return found


def test_a_started_region_is_healthy_and_answers_with_its_own_certificate(bed: Testbed) -> None:
    (status,) = bed.status()
    assert status.healthy
    assert status.node_ready is None
    assert KubeApi(bed.kubeconfig("us-east")).get("/version")["gitVersion"].startswith("v1.")
    assert bed.region("us-east").server == f"https://{status.address}:6443"


def test_a_second_up_starts_nothing(bed: Testbed) -> None:
    records = sorted((bed.kubeconfig("us-east").parent / "processes").iterdir())
    before = [path.read_text() for path in records]
    bed.up(regions=1, control_plane_only=True)
    assert [path.read_text() for path in records] == before


def test_a_component_that_was_ended_from_outside_is_started_again(bed: Testbed) -> None:
    record = bed.kubeconfig("us-east").parent / "processes" / "kube-controller-manager.json"
    pid = int(record.read_text().split(":")[1].split(",")[0])
    os.kill(pid, signal.SIGKILL)
    # A kill is not the death: a process that ran on the other processor lives on for a moment.
    deadline = time.monotonic() + 30
    while bed.status()[0].components["kube-controller-manager"]:
        assert time.monotonic() < deadline, "its death is not seen"
        time.sleep(0.05)
    bed.up(regions=1, control_plane_only=True)
    assert bed.status()[0].healthy


@pytest.mark.parametrize("kind", ["freeze", "cut", "kill"])
def test_a_fault_silences_the_region_and_healing_brings_it_back_with_its_data(bed: Testbed, kind: str) -> None:
    api = KubeApi(bed.kubeconfig("us-east"))
    namespace = api.get("/api/v1/namespaces/default")["metadata"]["uid"]
    bed.fault(kind, "us-east")
    (status,) = bed.status()
    assert not status.api_ready
    assert [str(fault) for fault in status.faults] == [kind]
    bed.heal("us-east")
    (status,) = bed.status()
    assert status.healthy
    assert status.faults == ()
    assert api.get("/api/v1/namespaces/default")["metadata"]["uid"] == namespace


def test_a_delay_makes_answers_late_and_healing_ends_it(bed: Testbed) -> None:
    bed.fault("delay", "us-east", delay_ms=300)
    (status,) = bed.status()
    assert not status.api_ready  # it looks for one second; a TLS handshake takes two round trips of 0.6 s and more
    bed.heal("us-east")
    assert bed.status()[0].healthy
