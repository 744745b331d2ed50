"""Three control planes that know each other, and a fresh start for every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from kubernetes import client
from kubernetes.config import new_client_from_config
from tests.integration.fleet.world import GatewayStandIn, Mood, Operator, World, wait_for

from holdfast.api import names
from holdfast.api.crd import DEFINITIONS, definition
from holdfast.cli.join import Cluster, join
from holdfast.cli.server import Server, path
from holdfast_testbed.testbed import Testbed


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world, made once."""
    if os.geteuid() != 0:
        pytest.skip("the testbed needs root")
    logs = tmp_path_factory.mktemp("operators")
    bed = Testbed("holdfast-fleet-test")
    world = None
    try:
        regions = {each.name: each for each in bed.up(regions=3, control_plane_only=True)}
        for region in regions.values():
            with new_client_from_config(str(region.kubeconfig)) as api:
                extensions = client.ApiextensionsV1Api(api)
                for each in DEFINITIONS:
                    extensions.create_custom_resource_definition(definition(each))
        gateways = {name: GatewayStandIn() for name in regions}
        clusters = [Cluster(each.name, each.kubeconfig, gateway_address="127.0.0.1") for each in regions.values()]
        wait_for("the CRDs", lambda: join(clusters))
        servers = {name: Server.open(name, region.kubeconfig) for name, region in regions.items()}
        operators = {name: Operator(region, logs / f"{name}.log") for name, region in regions.items()}
        world = World(bed, regions, servers, operators, gateways)
        for server in servers.values():
            for name, gateway in gateways.items():
                port = {"spec": {"gateway": {"address": "127.0.0.1", "peerPort": gateway.port}}}
                whole = {"apiVersion": names.API_VERSION, "kind": "Region", "metadata": {"name": name}}
                server.apply(whole | port, "test-user")
        yield world
    finally:
        if world:
            for operator in world.operators.values():
                if operator.runs:
                    operator.kill()
                print(operator.region, operator.log.read_text()[-6000:])
            for gateway in world.gateways.values():
                gateway.close()
        bed.down()


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    """All regions well, all operators running, one leads, no services."""
    for status in shared.bed.status():
        if status.faults:
            shared.bed.heal(status.name)
    for gateway in shared.gateways.values():
        gateway.mood, gateway.traffic = Mood.WELL, {}
    for operator in shared.operators.values():
        if operator.runs:
            operator.wake()
        operator.start()
    shared.wait_leader()
    yield shared
    for status in shared.bed.status():
        if status.faults:
            shared.bed.heal(status.name)
    for operator in shared.operators.values():
        if operator.runs:
            operator.wake()
        operator.start()
    for name in shared.created:
        for server in shared.servers.values():
            server.delete(path("LLMService", "default", name))
    shared.created.clear()
    wait_for("the end of all services", lambda: not any(s.list("LLMService") for s in shared.servers.values()))
