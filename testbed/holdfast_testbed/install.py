"""Installs Holdfast in every region of a testbed, as a user would: images, the Helm chart, `Region` objects."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import helm_python
from kubernetes import client
from kubernetes.config import new_client_from_config

from holdfast.cli import join
from holdfast.errors import HoldfastError

from .errors import TestbedError
from .images.build import build_images
from .images.project import find_project
from .progress import SILENT, Progress
from .testbed import Region, Testbed

RELEASE = "holdfast"
NAMESPACE = "holdfast-system"
READY_SECONDS = 300.0


def install(
    bed: Testbed, progress: Progress = SILENT, *, source: Path | None = None, values: Mapping[str, Any] | None = None
) -> None:
    """Bring every region to the source tree's Holdfast; returns when operator and gateway run in all of them.

    `values` are the chart's, beside those for a small machine. Raises TestbedError with what is not ready, and why.
    """
    project = source or find_project(Path(__file__))
    archives = build_images(source=project, progress=progress)
    bed.load_images(archives)
    images = {archive.stem.partition("-")[0]: reference(archive) for archive in archives}
    for region in bed.regions:
        with progress.step(f"{region.name}: installing the chart"):
            chosen = merged(chart_values(region.name, images), values or {})
            install_chart(region, project / "charts" / "holdfast", chosen)
            if len(bed.regions) == 1:
                apply(region, region_objects(bed.regions))
    if len(bed.regions) > 1:
        with progress.step("joining the regions") as update:
            join_regions(bed.regions, update)
    for region in bed.regions:
        with progress.step(f"{region.name}: operator and gateway starting"):
            wait_until_running(region)


def reference(archive: Path) -> str:
    """The image in an archive: `engine-0123abcd.tar` holds `holdfast/engine:0123abcd`."""
    name, _, key = archive.stem.partition("-")
    return f"holdfast/{name}:{key}"


def chart_values(region: str, images: dict[str, str]) -> dict[str, Any]:
    """The chart's values for one region of a small machine."""

    def image(name: str) -> dict[str, str]:
        repository, _, tag = images[name].partition(":")
        return {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"}

    return {
        "region": region,
        "operator": {"image": image("operator")},
        "engines": {"openvino": {"image": images["engine"]}},
        "gateway": {
            "image": image("gateway"),
            "replicas": 1,
            "concurrency": 1,
            "exposure": {"type": "HostPort"},
            "drainSeconds": 30,
        },
    }


def merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The first, with what the second says instead or besides, as Helm merges values."""
    found = dict(values)
    for name, value in more.items():
        before = found.get(name)
        found[name] = merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return found


def region_objects(regions: Iterable[Region]) -> list[dict[str, Any]]:
    """One `Region` object for each region, the same in every cluster."""
    return [
        {
            "apiVersion": "serving.holdfast.dev/v1alpha1",
            "kind": "Region",
            "metadata": {"name": region.name},
            "spec": {"gateway": {"address": region.address}},
        }
        for region in regions
    ]


def join_regions(regions: Iterable[Region], report: Callable[[str], None] = lambda _: None) -> None:
    """Let every region's operator reach the others', as `holdfast region join` does. Raises TestbedError."""
    clusters = [join.Cluster(region.name, region.kubeconfig, gateway_address=str(region.address)) for region in regions]
    try:
        join.join(clusters, report=report)
    except HoldfastError as error:
        raise TestbedError(f"The regions could not be joined: {error}") from error


def install_chart(region: Region, chart: Path, values: dict[str, Any]) -> None:
    """`helm upgrade --install` of the chart."""
    with helm_python.Config(kubeconfig_path=region.kubeconfig, namespace=NAMESPACE) as helm:
        try:
            if any(release["name"] == RELEASE for release in helm.list(all_states=True)):
                helm.upgrade(str(chart), RELEASE, values, namespace=NAMESPACE)
            else:
                helm.install(str(chart), RELEASE, values, namespace=NAMESPACE, create_namespace=True)
        except helm_python.HelmError as error:
            raise TestbedError(f"Helm could not install Holdfast in {region.name}: {error}") from error


def apply(region: Region, objects: Iterable[dict[str, Any]]) -> None:
    """Server-side apply of Holdfast's own objects, cluster-scoped or not. Raises TestbedError."""
    with new_client_from_config(str(region.kubeconfig)) as api:
        for each in objects:
            group, _, version = each["apiVersion"].partition("/")
            namespace = each["metadata"].get("namespace")
            scope = f"namespaces/{namespace}/" if namespace else ""
            path = f"/apis/{group}/{version}/{scope}{each['kind'].lower()}s/{each['metadata']['name']}"
            request = api.param_serialize(
                "PATCH",
                path,
                query_params=[("fieldManager", "holdfast-testbed"), ("force", "true")],
                header_params={"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"},
                body=each,
                auth_settings=["BearerToken"],
            )
            response = api.call_api(*request, _request_timeout=15)
            content = response.read()
            if response.status >= 400:
                message = json.loads(content).get("message", content)
                raise TestbedError(f"{region.name} refuses {each['kind']} {each['metadata']['name']}: {message}")


def wait_until_running(region: Region, seconds: float = READY_SECONDS) -> None:
    """Until every Deployment of the release is up to date and available. Raises TestbedError."""
    with new_client_from_config(str(region.kubeconfig)) as api:
        apps = client.AppsV1Api(api)

        def missing() -> list[str]:
            deployments = apps.list_namespaced_deployment(NAMESPACE, _request_timeout=15).items
            return [str(each.metadata.name) for each in map(_any, deployments) if not _settled(each)]

        left = wait_for_none(missing, seconds)
        if left:
            pods = client.CoreV1Api(api).list_namespaced_pod(NAMESPACE, _request_timeout=15).items
            raise TestbedError(f"{region.name}: {', '.join(left)} did not start: {'; '.join(map(_describe, pods))}")


def wait_for_none(missing: Callable[[], list[str]], seconds: float, pause: float = 0.5) -> list[str]:
    """Ask until nothing is missing or the time is over; what is missing in the end."""
    until = time.monotonic() + seconds
    while (left := missing()) and time.monotonic() < until:
        time.sleep(pause)
    return left


def _any(value: Any) -> Any:
    """The client types every field as optional."""
    return value


def _settled(deployment: Any) -> bool:
    status, wanted = deployment.status, deployment.spec.replicas
    seen = (status.observed_generation or 0) >= deployment.metadata.generation
    return bool(seen and status.updated_replicas == wanted == status.available_replicas == status.replicas)


def _describe(pod: Any) -> str:
    """One Pod in a few words: its phase, or why a container of it waits or ended."""
    for container in (*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())):
        state = container.state
        if state and state.waiting and state.waiting.reason:
            return f"{pod.metadata.name}/{container.name} {state.waiting.reason} {state.waiting.message or ''}".strip()
        if state and state.terminated and state.terminated.exit_code:
            return f"{pod.metadata.name}/{container.name} ended with {state.terminated.exit_code}"
    return f"{pod.metadata.name} {pod.status.phase}"
