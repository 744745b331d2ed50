"""Three real API servers without nodes, with Holdfast's CRDs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.integration.cli.servers import Clusters, wait_for

from holdfast.api.crd import DEFINITIONS, definition
from holdfast.cli.server import Server
from holdfast_testbed.testbed import Testbed

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="package")
def clusters() -> Iterator[Clusters]:
    if os.geteuid() != 0:
        pytest.skip("the testbed needs root")
    bed = Testbed("holdfast-join-test")
    try:
        regions = bed.up(regions=3, control_plane_only=True)
        servers = {each.name: Server.open(each.name, each.kubeconfig) for each in regions}
        for server in servers.values():
            for each in DEFINITIONS:
                server.request("POST", CRDS, body=definition(each))
        for server in servers.values():
            wait_for(f"the CRDs of {server.name}", lambda s=server: s.list("RegionPlan") == [])
        yield Clusters(bed, {each.name: each for each in regions}, servers)
    finally:
        bed.down()
