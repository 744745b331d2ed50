"""The provider for machines with Docker: every region is a kind cluster of one node.

Regions reach each other over Docker's network `kind`; a region's address is its node's there, so this provider needs
Linux (elsewhere containers' addresses cannot be reached from the host). All work is done by the commands `kind` and
`docker`, handed to an injected runner; its tests check these commands with a recording one. It has not been run
against a real Docker engine in this project's own CI, which has none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from . import fault_record
from .commands import run
from .errors import CommandError, TestbedError
from .progress import Progress
from .provider import Fault, FaultKind, RegionStatus
from .state import Bed, write_atomically

GPU_PATCH = {"status": {"capacity": {"nvidia.com/gpu": "8"}, "allocatable": {"nvidia.com/gpu": "8"}}}
CREATE_SECONDS = 600.0

Runner = Callable[..., str]


class KindProvider:
    """Runs regions as kind clusters."""

    def __init__(self, runner: Runner = run) -> None:
        self._run = runner

    def up(self, bed: Bed, progress: Progress) -> None:
        """Create the clusters that are missing and heal the others."""
        existing = set(self._run(["kind", "get", "clusters"]).split())
        for name in bed.regions:
            with progress.step(f"{name}: creating" if cluster_name(bed, name) not in existing else f"{name}: checking"):
                if cluster_name(bed, name) not in existing:
                    self._create(bed, name)
                self._heal(bed, name)

    def down(self, bed: Bed, progress: Progress) -> None:
        """Delete the clusters."""
        for name in bed.regions:
            with progress.step(f"{name}: deleting"):
                self._run(["kind", "delete", "cluster", "--name", cluster_name(bed, name)], timeout=CREATE_SECONDS)

    def status(self, bed: Bed) -> tuple[RegionStatus, ...]:
        """Look at every cluster."""
        return tuple(self._status(bed, name) for name in bed.regions)

    def load_images(self, bed: Bed, regions: Sequence[str], archives: Sequence[Path], progress: Progress) -> None:
        """Load the archives into the clusters' nodes; kind itself skips what is there."""
        for name in regions:
            for archive in archives:
                with progress.step(f"{name}: loading {archive.name}"):
                    cluster = cluster_name(bed, name)
                    self._run(
                        ["kind", "load", "image-archive", str(archive), "--name", cluster],
                        timeout=CREATE_SECONDS,
                    )

    def fault(self, bed: Bed, region: str, fault: Fault | None, progress: Progress) -> None:
        """Inject a fault, or heal."""
        if fault is None:
            with progress.step(f"{region}: healing"):
                self._heal(bed, region)
            return
        fault_record.add(bed.region_folder(region), fault)
        for command in fault_commands(node_name(bed, region), fault):
            self._run(command)

    def _create(self, bed: Bed, region: str) -> None:
        folder = bed.region_folder(region)
        config = folder / "kind.yaml"
        write_atomically(config, yaml.safe_dump(cluster_config(bed, region), sort_keys=False))
        cluster = cluster_name(bed, region)
        scratch = folder / "kind.kubeconfig"  # kept out of the user's ~/.kube/config
        # fmt: off
        self._run(["kind", "create", "cluster", "--name", cluster, "--config", str(config),
                   "--kubeconfig", str(scratch), "--wait", "180s"], timeout=CREATE_SECONDS)
        # fmt: on
        raw = self._run(["kind", "get", "kubeconfig", "--internal", "--name", cluster])
        address = self._address(bed, region)
        write_atomically(bed.kubeconfig(region), kubeconfig_at(raw, region, address))

    def _heal(self, bed: Bed, region: str) -> None:
        node, folder = node_name(bed, region), bed.region_folder(region)
        for fault in reversed(fault_record.present(folder)):
            for command in heal_commands(node, fault):
                self._run(command)
        self._run(kubectl(node, "wait", "--for=condition=Ready", f"node/{node}", "--timeout=180s"), timeout=200.0)
        patch = json.dumps(GPU_PATCH)
        self._run(kubectl(node, "patch", "node", node, "--subresource=status", "--type=merge", "-p", patch))
        fault_record.clear(folder)

    def _status(self, bed: Bed, region: str) -> RegionStatus:
        node = node_name(bed, region)
        faults = fault_record.present(bed.region_folder(region))
        try:
            running = self._run(["docker", "inspect", "-f", "{{.State.Status}}", node]).strip() == "running"
            address = self._address(bed, region)
            ready = running and self._run(kubectl(node, "get", "--raw=/readyz"), timeout=5.0).strip() == "ok"
        except CommandError:
            return RegionStatus(region, "", bed.kubeconfig(region), faults, {"node": False})
        return RegionStatus(region, address, bed.kubeconfig(region), faults, {"node": running}, ready, ready or None)

    def _address(self, bed: Bed, region: str) -> str:
        pattern = '{{(index .NetworkSettings.Networks "kind").IPAddress}}'
        address = self._run(["docker", "inspect", "-f", pattern, node_name(bed, region)]).strip()
        if not address:
            raise TestbedError(f"Docker gave region {region} no address on its network `kind`.")
        return address


def cluster_name(bed: Bed, region: str) -> str:
    """Name of the region's kind cluster."""
    return f"{bed.name}-{region}"


def node_name(bed: Bed, region: str) -> str:
    """Name of the cluster's node and of its container, by kind's rule."""
    return f"{cluster_name(bed, region)}-control-plane"


def cluster_config(bed: Bed, region: str) -> dict[str, Any]:
    """kind's configuration of a region; pod and service ranges differ, so that regions can be told apart."""
    where = bed.addresses.region(region)
    labels = {"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": f"{region}-a"}
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {"podSubnet": str(where.pods), "serviceSubnet": str(where.services)},
        "nodes": [{"role": "control-plane", "labels": labels}],
    }


def kubeconfig_at(raw: str, region: str, address: str) -> str:
    """kind's kubeconfig with the node's address as server, which holds on the host and in other regions alike."""
    document = yaml.safe_load(raw)
    document["clusters"][0]["cluster"]["server"] = f"https://{address}:6443"
    document["clusters"][0]["name"] = region
    document["contexts"][0]["context"]["cluster"] = region
    document["contexts"][0]["name"] = region
    document["current-context"] = region
    return yaml.safe_dump(document, sort_keys=False)


def kubectl(node: str, *arguments: str) -> list[str]:
    """kubectl inside the node, as administrator."""
    return ["docker", "exec", node, "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", *arguments]


def fault_commands(node: str, fault: Fault) -> list[list[str]]:
    """What makes the fault happen to a node's container."""
    # Only what leaves the node can be shaped: all of the round trip is put there.
    shape = ["docker", "exec", node, "tc", "qdisc", "replace", "dev", "eth0", "root", "netem"]
    match fault.kind:
        case FaultKind.KILL:
            return [["docker", "kill", node]]
        case FaultKind.FREEZE:
            return [["docker", "pause", node]]
        case FaultKind.CUT:
            return [[*shape, "loss", "100%"]]
        case FaultKind.DELAY:
            return [[*shape, "delay", f"{2 * fault.delay_ms}ms"]]


def heal_commands(node: str, fault: Fault) -> list[list[str]]:
    """What undoes the fault."""
    match fault.kind:
        case FaultKind.KILL:
            return [["docker", "start", node]]
        case FaultKind.FREEZE:
            return [["docker", "unpause", node]]
        case FaultKind.CUT | FaultKind.DELAY:
            return [["docker", "exec", node, "sh", "-c", "tc qdisc del dev eth0 root 2>/dev/null || true"]]
