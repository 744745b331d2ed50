"""Three real regions with Holdfast installed by Helm, the example service serving in each, and an edge in front."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client
from kubernetes.config import new_client_from_config
from rich.console import Console
from tests.e2e.world import World
from tests.integration.gateway import certificates

from holdfast_chaos.edge import Edge
from holdfast_chaos.ready import default_service
from holdfast_chaos.service import RegionalService, read_service, wait_until_serving
from holdfast_testbed.install import NAMESPACE, install
from holdfast_testbed.progress import Progress
from holdfast_testbed.testbed import Region, Testbed

PEERS = "gateway-peers"


@pytest.fixture(scope="session")
def world(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The regions, whose gateways demand certificates of each other; they are removed at the end."""
    if os.geteuid() != 0:
        pytest.skip("the testbed needs root")
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # minutes of silence would look like a hang
        progress = Progress(Console(stderr=True))
        bed = Testbed("holdfast-e2e", progress)
        try:
            bed.up(3)
            peers = tmp_path_factory.mktemp("peers")
            certificates.authority(peers)
            certificates.certificate(peers)
            for region in bed.regions:
                give_certificate(region, peers)
            install(bed, progress, values={"gateway": {"tls": {"peerSecret": PEERS}}})
            service = read_service(default_service())
            # Traffic comes back within seconds, so that no test waits for the ramp of the one before.
            service.manifest["spec"]["failover"] = {"healthyAfter": "2s", "failback": {"steps": [50], "hold": "2s"}}
            regions = [RegionalService(region.name, region.kubeconfig, service) for region in bed.regions]
            regions[0].apply()
            with progress.step("waiting until the example serves everywhere") as update:
                wait_until_serving(regions, update)
            with Edge([region.kubeconfig for region in bed.regions], ["--peer-tls", str(peers)]) as edge:
                yield World(bed, edge, service, regions)
        finally:
            bed.down()


def give_certificate(region: Region, folder: Path) -> None:
    """The certificates that gateways show each other, as a Secret of cert-manager's form."""
    held = {name: (folder / name).read_text() for name in ("ca.crt", "tls.crt", "tls.key")}
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name=PEERS), type="kubernetes.io/tls", string_data=held)
    with new_client_from_config(str(region.kubeconfig)) as api:
        core = client.CoreV1Api(api)
        core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
        core.create_namespaced_secret(NAMESPACE, secret)


@pytest.fixture
def healthy(world: World) -> World:
    """The world with every region serving through the edge, whatever the test before did."""
    for status in world.bed.status():
        if status.faults:
            world.bed.heal(status.name)
    world.wait_all_serve()
    return world
