"""The whole product, `holdfast-gateway run`, against a real API server: it follows it, and outlives it."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kubernetes.aio import client, config
from tests.integration.gateway.bed import Gateway, free_port, status_of, wait_for
from tests.integration.gateway.load import Load, failed, send_load
from tests.integration.gateway.processes import Server, engine

from holdfast.api.names import (
    COMPONENT_LABEL,
    ENGINE_COMPONENT,
    MANAGED_BY_LABEL,
    MANAGER,
    ROUTE_COMPONENT,
    SERVICE_LABEL,
)
from holdfast.api.route import RegionTarget, Route
from holdfast_gateway.options import Options, Role
from holdfast_testbed.errors import TestbedError
from holdfast_testbed.testbed import Testbed

pytestmark = pytest.mark.integration

LABELS = {MANAGED_BY_LABEL: MANAGER, SERVICE_LABEL: "chat"}


@pytest.fixture(scope="module")
def control_plane() -> Iterator[Testbed]:
    """One region without nodes, of this run alone."""
    bed = Testbed(f"gw-{os.getpid()}")
    try:
        bed.up(regions=1, control_plane_only=True)
    except TestbedError as error:
        bed.down()
        pytest.skip(f"no API server can be started here: {error}")
    try:
        yield bed
    finally:
        bed.down()


@pytest.fixture
async def api(control_plane: Testbed) -> AsyncIterator[client.CoreV1Api]:
    settings = client.Configuration()
    kubeconfig = str(control_plane.regions[0].kubeconfig)
    await config.load_kube_config(config_file=kubeconfig, client_configuration=settings)
    async with client.ApiClient(configuration=settings) as connection:
        yield client.CoreV1Api(connection)


@pytest.fixture
def gateway(control_plane: Testbed, tmp_path: Path) -> Iterator[Gateway]:
    """`holdfast-gateway run` on an address of its own."""
    options = Options(role=Role.REGIONAL, listen=f"127.{random.randint(1, 250)}.252.1", admin_port=free_port())
    command = [sys.executable, "-m", "holdfast_gateway", "run", "--dir", str(tmp_path / "files")]
    command += ["--kubeconfig", str(control_plane.regions[0].kubeconfig), "--listen", options.listen]
    command += ["--admin-port", str(options.admin_port), "--concurrency", "1", "--status-port", "9903"]
    server = Server(command, tmp_path / "gateway.log")
    server.start()
    yield Gateway(tmp_path / "files", options, server)
    server.kill()


def config_map(gateway: Gateway) -> dict[str, object]:
    """The route of the only service."""
    regions = (RegionTarget(name="us-east", address=gateway.options.listen),)
    route = Route(namespace="default", service="chat", model="llama", region="us-east", regions=regions)
    labels = LABELS | {COMPONENT_LABEL: ROUTE_COMPONENT}
    return {
        "metadata": {"name": "chat-route", "labels": labels},
        "data": {"route.json": route.model_dump_json(by_alias=True)},
    }


async def add_engine(api: client.CoreV1Api, address: str) -> None:
    """A Pod as a kubelet would report it."""
    labels = LABELS | {COMPONENT_LABEL: ENGINE_COMPONENT}
    container = {"name": "engine", "image": "none"}
    spec = {"containers": [container], "automountServiceAccountToken": False}
    await api.create_namespaced_pod("default", {"metadata": {"name": "chat-0", "labels": labels}, "spec": spec})
    running = {"name": "engine", "image": "none", "imageID": "", "ready": True, "started": True, "restartCount": 0}
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "containerStatuses": [running]}
    await api.patch_namespaced_pod_status("chat-0", "default", {"status": status})


async def test_a_gateway_follows_a_real_api_server_and_outlives_it(
    control_plane: Testbed, api: client.CoreV1Api, gateway: Gateway, tmp_path: Path
) -> None:
    address = gateway.options.listen.removesuffix(".1") + ".10"
    stand_in = engine("us-0", address, 8000, tmp_path)
    stand_in.start()
    try:
        await asyncio.to_thread(wait_for, lambda: status_of(f"{gateway.url}/ready") == 200, "it is ready")
        await api.create_namespaced_config_map("default", config_map(gateway))
        await add_engine(api, address)
        ready = f"{gateway.peer_url}/ready/default/chat"
        await asyncio.to_thread(wait_for, lambda: status_of(ready) == 200, "it has found the engine")
        light = Load(rate=20, seconds=1, answers=(0.02,))
        assert failed(await send_load(gateway.url, light)) == []
        await asyncio.to_thread(control_plane.fault, "kill", control_plane.regions[0].name)
        assert failed(await send_load(gateway.url, light)) == []
        gateway.kill_envoy()
        await asyncio.to_thread(wait_for, lambda: status_of(ready) == 200, "Envoy is back without an API server")
        assert failed(await send_load(gateway.url, light)) == []
        gateway.server.terminate()
        assert await asyncio.to_thread(gateway.server.wait, 20) == 0
    finally:
        stand_in.kill()
