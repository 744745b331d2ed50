"""Three real regions with Holdfast installed by Helm, the example service serving in each, and an edge in front."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from rich.console import Console
from tests.e2e.world import World

from holdfast_chaos.edge import Edge
from holdfast_chaos.ready import default_service
from holdfast_chaos.service import RegionalService, read_service, wait_until_serving
from holdfast_testbed.install import install
from holdfast_testbed.progress import Progress
from holdfast_testbed.testbed import Testbed


@pytest.fixture(scope="session")
def world(pytestconfig: pytest.Config) -> Iterator[World]:
    """The regions; they are removed at the end."""
    if os.geteuid() != 0:
        pytest.skip("the testbed needs root")
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():  # minutes of silence would look like a hang
        progress = Progress(Console(stderr=True))
        bed = Testbed("holdfast-e2e", progress)
        try:
            bed.up(3)
            install(bed, progress)
            service = read_service(default_service())
            # Traffic comes back within seconds, so that no test waits for the ramp of the one before.
            service.manifest["spec"]["failover"] = {"healthyAfter": "2s", "failback": {"steps": [50], "hold": "2s"}}
            regions = [RegionalService(region.name, region.kubeconfig, service) for region in bed.regions]
            regions[0].apply()
            with progress.step("waiting until the example serves everywhere") as update:
                wait_until_serving(regions, update)
            with Edge([region.kubeconfig for region in bed.regions]) as edge:
                yield World(bed, edge, service, regions)
        finally:
            bed.down()


@pytest.fixture
def healthy(world: World) -> World:
    """The world with every region serving through the edge, whatever the test before did."""
    for status in world.bed.status():
        if status.faults:
            world.bed.heal(status.name)
    world.wait_all_serve()
    return world
