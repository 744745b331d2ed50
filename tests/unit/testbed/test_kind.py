"""The kind provider's commands, recorded instead of run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast_testbed import fault_record
from holdfast_testbed.errors import CommandError
from holdfast_testbed.kind import KindProvider, cluster_config, fault_commands, heal_commands
from holdfast_testbed.progress import SILENT
from holdfast_testbed.provider import Fault, FaultKind
from holdfast_testbed.state import Bed

KUBECONFIG = yaml.safe_dump(
    {
        "clusters": [{"name": "kind-x", "cluster": {"server": "https://paper-us-east-control-plane:6443"}}],
        "contexts": [{"name": "kind-x", "context": {"cluster": "kind-x", "user": "kind-x"}}],
        "users": [{"name": "kind-x", "user": {}}],
        "current-context": "kind-x",
    }
)


class Recorder:
    """Answers commands as kind and docker do and remembers them."""

    def __init__(self, clusters: str = "") -> None:
        self.commands: list[list[str]] = []
        self.clusters = clusters
        self.docker_answers = True

    def __call__(self, argv: list[str], **_: Any) -> str:
        self.commands.append(argv)
        if argv[:3] == ["kind", "get", "clusters"]:
            return self.clusters
        if argv[:3] == ["kind", "get", "kubeconfig"]:
            return KUBECONFIG
        if argv[:2] == ["docker", "inspect"]:
            if not self.docker_answers:
                raise CommandError(argv, "no such container")
            return "running" if "State" in argv[3] else "172.18.0.2"
        return "ok" if "--raw=/readyz" in argv else ""

    def verbs(self) -> list[str]:
        return [" ".join(command[:3]) for command in self.commands]


@pytest.fixture
def one(bed: Bed) -> Bed:
    return Bed(bed.name, bed.slot, "kind", False, ("us-east",))


def test_up_creates_a_missing_cluster_and_rewrites_its_kubeconfig_to_the_nodes_address(one: Bed) -> None:
    recorder = Recorder()
    KindProvider(recorder).up(one, SILENT)
    create = next(command for command in recorder.commands if command[:3] == ["kind", "create", "cluster"])
    assert create[create.index("--name") + 1] == "paper-us-east"
    written = yaml.safe_load(one.kubeconfig("us-east").read_text())
    assert written["clusters"][0]["cluster"]["server"] == "https://172.18.0.2:6443"
    assert written["current-context"] == "us-east"


def test_up_leaves_an_existing_cluster_and_gives_its_node_gpus(one: Bed) -> None:
    recorder = Recorder(clusters="paper-us-east\nother\n")
    KindProvider(recorder).up(one, SILENT)
    assert "kind create cluster" not in recorder.verbs()
    patch = recorder.commands[-1]
    assert json.loads(patch[-1])["status"]["allocatable"] == {"nvidia.com/gpu": "8"}


def test_down_deletes_the_clusters_of_this_testbed_only(one: Bed) -> None:
    recorder = Recorder()
    KindProvider(recorder).down(one, SILENT)
    assert recorder.commands == [["kind", "delete", "cluster", "--name", "paper-us-east"]]


def test_images_are_loaded_from_archives(one: Bed) -> None:
    recorder = Recorder()
    KindProvider(recorder).load_images(one, ["us-east"], [Path("/a.tar")], SILENT)
    assert recorder.commands == [["kind", "load", "image-archive", "/a.tar", "--name", "paper-us-east"]]


@pytest.mark.parametrize(
    ("fault", "verb"),
    [
        (Fault(FaultKind.KILL), "docker kill"),
        (Fault(FaultKind.FREEZE), "docker pause"),
        (Fault(FaultKind.CUT), "docker exec"),
        (Fault(FaultKind.DELAY, 40), "docker exec"),
    ],
)
def test_every_fault_has_commands_and_a_way_back(fault: Fault, verb: str) -> None:
    assert all(" ".join(command[:2]) == verb for command in fault_commands("node", fault))
    assert heal_commands("node", fault)


def test_the_whole_round_trips_delay_is_put_on_the_way_out() -> None:
    assert fault_commands("node", Fault(FaultKind.DELAY, 40))[0][-2:] == ["delay", "80ms"]


def test_a_fault_is_recorded_and_healing_undoes_it(one: Bed) -> None:
    recorder = Recorder()
    provider = KindProvider(recorder)
    provider.fault(one, "us-east", Fault(FaultKind.FREEZE), SILENT)
    assert fault_record.present(one.region_folder("us-east")) == (Fault(FaultKind.FREEZE),)
    provider.fault(one, "us-east", None, SILENT)
    assert recorder.verbs()[1] == "docker unpause paper-us-east-control-plane"
    assert fault_record.present(one.region_folder("us-east")) == ()


def test_a_cluster_that_is_gone_is_not_healthy(one: Bed) -> None:
    recorder = Recorder()
    recorder.docker_answers = False
    (status,) = KindProvider(recorder).status(one)
    assert not status.healthy
    recorder.docker_answers = True
    (status,) = KindProvider(recorder).status(one)
    assert status.healthy
    assert status.address == "172.18.0.2"


def test_pod_and_service_ranges_differ_between_regions(bed: Bed) -> None:
    ranges = [cluster_config(bed, region)["networking"]["podSubnet"] for region in bed.regions]
    assert len(set(ranges)) == 3
