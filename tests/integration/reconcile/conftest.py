"""A real API server with Holdfast's CRDs, and the operator as a process of its own beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from kubernetes import client
from kubernetes.config import new_client_from_config
from tests.integration.reconcile.servers import REGIONS, Operator, Server, wait_for

from holdfast.api.crd import DEFINITIONS, definition
from holdfast_testbed.testbed import Testbed


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """One region without nodes, with the CRDs and two `Region` objects."""
    if os.geteuid() != 0:
        pytest.skip("the testbed needs root")
    bed = Testbed("holdfast-operator-test")
    try:
        [region] = bed.up(regions=1, control_plane_only=True)
        with new_client_from_config(str(region.kubeconfig)) as api:
            found = Server(bed, region, api)
            extensions = client.ApiextensionsV1Api(api)
            for each in DEFINITIONS:
                extensions.create_custom_resource_definition(definition(each))
            for at, name in enumerate(REGIONS, 11):
                wait_for(f"Region {name}", lambda n=name, a=at: found.create_region(n, f"198.18.0.{a}") or True)
            yield found
    finally:
        bed.down()


@pytest.fixture(scope="package")
def operator(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    running = Operator(server.region, tmp_path_factory.mktemp("operator") / "log")
    running.start()
    yield running
    code = running.stop()
    print(running.log.read_text()[-20000:])
    assert code == 0, "the operator did not stop cleanly"


@pytest.fixture
def service(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for a service of this test; it is deleted afterwards if it was created."""
    name = "t-" + str(abs(hash(request.node.name)) % 10**8)
    yield name
    for each in (name, f"{name}-2"):
        try:
            server.delete(each)
        except client.ApiException as error:
            if error.status != 404:
                raise
