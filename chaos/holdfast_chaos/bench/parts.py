"""Says which processes of this machine are which part of a region: Holdfast's by container, Kubernetes' the rest.

A container is known from the API server's list of Pods, its processes from their cgroup, which holds the
container's id. On the bare provider everything else that lives in the region is Kubernetes, its runtime included; on
kind it is what runs as Pods of kube-system, so the kubelet and the runtime are missing there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from kubernetes import client
from kubernetes.config import new_client_from_config
from urllib3.exceptions import HTTPError

from holdfast.api.names import COMPONENT_LABEL, ENGINE_COMPONENT, SERVICE_LABEL
from holdfast_chaos.service import Service
from holdfast_testbed import state
from holdfast_testbed.bare.processes import members
from holdfast_testbed.bare.site import bare_site
from holdfast_testbed.install import NAMESPACE
from holdfast_testbed.testbed import Region, Testbed

from .benchmark import BenchError
from .processes import by_container

OPERATOR, AGENT, SUPERVISOR, ENVOY, ENGINE = "operator", "gateway agent", "gateway supervisor", "Envoy", "engine"
HOLDFAST = (OPERATOR, AGENT, SUPERVISOR, ENVOY, ENGINE)
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
ASK_SECONDS = 10.0
SETTLED_SECONDS = 5.0
"""Younger processes are not counted: the runtime starts some that live for moments."""


@dataclass(frozen=True)
class Parts:
    """One region's processes by part. Names of Kubernetes' parts are their programs'."""

    holdfast: dict[str, list[psutil.Process]]
    kubernetes: dict[str, list[psutil.Process]]
    images: dict[str, str]
    """Name of a container of Holdfast → the image that it runs."""

    @property
    def all(self) -> list[psutil.Process]:
        """Every process."""
        return [one for parts in (self.holdfast, self.kubernetes) for processes in parts.values() for one in processes]


@dataclass(frozen=True)
class Container:
    """A running container."""

    id: str
    name: str
    image: str
    namespace: str
    labels: dict[str, str]


def find_parts(bed: Testbed, region: Region, service: Service) -> Parts:
    """The region's processes now; BenchError if a part of Holdfast has none on this machine."""
    containers = _containers(region)
    running = by_container(container.id for container in containers)
    holdfast: dict[str, list[psutil.Process]] = {part: [] for part in HOLDFAST}
    images = {}
    counted = set()
    for container in containers:
        if not is_holdfast(container, service):
            continue
        images[container.name] = container.image
        for process in running[container.id]:
            holdfast[part_of(container.name, process.name())].append(process)
            counted.add(process.pid)
    for part, processes in holdfast.items():
        if not processes:
            raise BenchError(f"{region.name}: no process of the {part} was found on this machine; does it run?")
    return Parts(holdfast, _kubernetes(bed, region, containers, counted), images)


def is_holdfast(container: Container, service: Service) -> bool:
    """Whether a container is a part of Holdfast or an engine of this service."""
    if container.namespace == NAMESPACE:
        return True
    labels = (container.labels.get(COMPONENT_LABEL), container.labels.get(SERVICE_LABEL))
    return container.namespace == service.namespace and labels == (ENGINE_COMPONENT, service.name)


def part_of(container: str, program: str) -> str:
    """The part that a program in a container of Holdfast is; the container `envoy` holds Envoy and its supervisor."""
    match container:
        case "operator":
            return OPERATOR
        case "agent":
            return AGENT
        case "envoy":
            return ENVOY if program == "envoy" else SUPERVISOR
        case _:
            return ENGINE


def _kubernetes(
    bed: Testbed, region: Region, containers: Iterable[Container], holdfast: set[int]
) -> dict[str, list[psutil.Process]]:
    recorded = state.load_bed(bed.name)
    if recorded is not None and recorded.provider == "bare":
        found = members(bare_site(recorded, region.name, Path()))
    else:
        system = [one.id for one in containers if one.namespace == "kube-system" and one.name in CONTROL_PLANE]
        found = {process.pid for group in by_container(system).values() for process in group}
    parts: dict[str, list[psutil.Process]] = {}
    for pid in sorted(found - holdfast):
        try:
            process = psutil.Process(pid)
            if time.time() - process.create_time() > SETTLED_SECONDS:
                parts.setdefault(process.name(), []).append(process)
        except psutil.NoSuchProcess:
            continue
    return parts


def _containers(region: Region) -> list[Container]:
    try:
        with new_client_from_config(str(region.kubeconfig)) as api:
            pods: list[Any] = client.CoreV1Api(api).list_pod_for_all_namespaces(_request_timeout=ASK_SECONDS).items
    except (client.ApiException, HTTPError) as error:
        raise BenchError(f"{region.name}: its API server does not list Pods: {error}") from error
    return [
        Container(
            str(one.container_id).rpartition("//")[2], str(one.name), str(one.image),
            str(pod.metadata.namespace), dict(pod.metadata.labels or {}),
        )
        for pod in pods
        for one in pod.status.container_statuses or ()
        if one.state.running
    ]  # fmt: skip
