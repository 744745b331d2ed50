"""The agent follows its API servers, and loses nothing when they are away, forgetful, silent or wrong."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.gateway.agents import agent_of, eventually
from tests.integration.gateway.api_stand_in import ApiStandIn

from holdfast.api.names import MANAGER, SERVICE_LABEL
from holdfast.api.route import RegionTarget, Route
from holdfast_gateway.options import Role

pytestmark = pytest.mark.integration


def route(service: str = "chat", model: str = "llama", **fields: Any) -> Route:
    regions = (RegionTarget(name="us", address="192.0.2.1"), RegionTarget(name="eu", address="192.0.2.2"))
    given = {"namespace": "default", "region": "us", "regions": regions}
    return Route(service=service, model=model, **(given | fields))


def config_map(made: Route, text: str | None = None) -> dict[str, Any]:
    meta = {"namespace": made.namespace, "name": f"{made.service}-route"}
    return {"metadata": meta, "data": {"route.json": text or made.model_dump_json(by_alias=True)}}


def pod(name: str, ip: str, service: str = "chat") -> dict[str, Any]:
    labels = {SERVICE_LABEL: service, "app.kubernetes.io/managed-by": MANAGER}
    return {
        "metadata": {"namespace": "default", "name": name, "uid": name, "labels": labels},
        "status": {"phase": "Running", "podIP": ip, "containerStatuses": [{"name": "e", "started": True}]},
    }


def contents(directory: Path) -> dict[str, str]:
    """All files."""
    return {path.name: path.read_text() for path in directory.iterdir()}


def models(directory: Path) -> set[str]:
    """Models that the client port routes."""
    values = [each["name"] for each in resources(directory) if each["@type"].endswith(".ScopedRouteConfiguration")]
    return {value.removeprefix("client/") for value in values if value.startswith("client/")} - {""}


def resources(directory: Path) -> list[dict[str, Any]]:
    """All that Envoy is served."""
    return [each for path in directory.glob("xds-*.json") for each in json.loads(path.read_text())["resources"]]


def engines(directory: Path) -> set[str]:
    """Addresses of all engines."""
    found = set()
    for each in resources(directory):
        if each.get("cluster_name", "").startswith("local/"):
            for host in each["endpoints"][0]["lb_endpoints"]:
                found.add(host["endpoint"]["address"]["socket_address"]["address"])
    return found


async def test_routes_and_engines_are_followed(tmp_path: Path, servers: list[ApiStandIn]) -> None:
    server = servers[0]
    await server.put("ConfigMap", config_map(route()))
    async with agent_of(tmp_path, Role.REGIONAL, server):
        await eventually(lambda: models(tmp_path) == {"llama"}, "the first list is applied")
        await server.put("Pod", pod("a", "10.0.0.1"))
        await server.put("Pod", pod("b", "10.0.0.2"))
        await eventually(lambda: engines(tmp_path) == {"10.0.0.1", "10.0.0.2"}, "new engines are found")
        await server.delete("Pod", "default/a")
        await eventually(lambda: engines(tmp_path) == {"10.0.0.2"}, "an engine that is gone is left out")
        await server.put("ConfigMap", config_map(route("code", "mistral")))
        await eventually(lambda: models(tmp_path) == {"llama", "mistral"}, "a new service is routed")
        await server.delete("ConfigMap", "default/chat-route")
        await eventually(lambda: models(tmp_path) == {"mistral"}, "a deleted service is not")


async def test_nothing_is_written_before_everything_has_been_read(tmp_path: Path, servers: list[ApiStandIn]) -> None:
    server = servers[0]
    await server.put("ConfigMap", config_map(route()))
    await server.put("Pod", pod("a", "10.0.0.1"))
    async with agent_of(tmp_path, Role.REGIONAL, server):
        await eventually(lambda: engines(tmp_path) == {"10.0.0.1"}, "the first list is applied")
    await server.set_broken("Pod")
    await server.put("ConfigMap", config_map(route("code", "mistral")))
    async with agent_of(tmp_path, Role.REGIONAL, server) as agent:
        await eventually(lambda: agent.sources[0].routes.complete, "routes are read, engines cannot be")
        await asyncio.sleep(0.3)
        assert (models(tmp_path), engines(tmp_path)) == ({"llama"}, {"10.0.0.1"})
        await server.set_broken()
        await eventually(lambda: models(tmp_path) == {"llama", "mistral"}, "it goes on by itself")
        assert engines(tmp_path) == {"10.0.0.1"}


async def test_an_outage_of_the_api_server_changes_nothing_and_ends_by_itself(
    tmp_path: Path, servers: list[ApiStandIn]
) -> None:
    server = servers[0]
    await server.put("ConfigMap", config_map(route()))
    await server.put("Pod", pod("a", "10.0.0.1"))
    async with agent_of(tmp_path, Role.REGIONAL, server) as agent:
        await eventually(lambda: engines(tmp_path) == {"10.0.0.1"}, "the first list is applied")
        before = contents(tmp_path)
        await server.stop()
        await eventually(lambda: not agent.sources[0].reachable, "the outage is noticed")
        await asyncio.sleep(0.3)
        assert contents(tmp_path) == before
        await server.start()
        await server.put("Pod", pod("b", "10.0.0.2"))
        await eventually(lambda: engines(tmp_path) == {"10.0.0.1", "10.0.0.2"}, "it catches up")


async def test_a_restarted_agent_without_an_api_server_leaves_the_last_good_files(
    tmp_path: Path, servers: list[ApiStandIn]
) -> None:
    server = servers[0]
    await server.put("ConfigMap", config_map(route()))
    async with agent_of(tmp_path, Role.REGIONAL, server):
        await eventually(lambda: models(tmp_path) == {"llama"}, "the first list is applied")
    await server.stop()
    before = contents(tmp_path)
    async with agent_of(tmp_path, Role.REGIONAL, server):
        await asyncio.sleep(0.5)
        assert contents(tmp_path) == before


async def test_a_broken_route_keeps_its_last_good_version_also_for_an_agent_that_restarts(
    tmp_path: Path, servers: list[ApiStandIn]
) -> None:
    server = servers[0]
    await server.put("ConfigMap", config_map(route()))
    async with agent_of(tmp_path, Role.REGIONAL, server) as agent:
        await eventually(lambda: models(tmp_path) == {"llama"}, "the good version is applied")
        await server.put("ConfigMap", config_map(route(), text='{"model": 7'))
        await eventually(lambda: len(agent.problems) == 1, "the problem is reported")
        assert models(tmp_path) == {"llama"}
    async with agent_of(tmp_path, Role.REGIONAL, server) as agent:
        await server.put("ConfigMap", config_map(route("code", "mistral")))
        await eventually(lambda: models(tmp_path) == {"llama", "mistral"}, "others go on")
        assert len(agent.problems) == 1


async def test_a_forgetful_server_is_listed_anew(tmp_path: Path, servers: list[ApiStandIn]) -> None:
    server = servers[0]
    async with agent_of(tmp_path, Role.REGIONAL, server) as agent:
        await eventually(lambda: agent.writes > 0, "the first list is applied")
        lists = server.lists
        await server.forget()
        await eventually(lambda: server.lists >= lists + 2, "both kinds are listed again")
        await server.put("ConfigMap", config_map(route()))
        await eventually(lambda: models(tmp_path) == {"llama"}, "and followed")


async def test_a_watch_that_died_without_a_word_is_given_up(tmp_path: Path, servers: list[ApiStandIn]) -> None:
    server = servers[0]
    async with agent_of(tmp_path, Role.REGIONAL, server) as agent:
        await eventually(lambda: agent.writes > 0, "the first list is applied")
        server.mute = True
        await server.put("ConfigMap", config_map(route()))
        await eventually(lambda: models(tmp_path) == {"llama"}, "a new list finds what the watch did not tell")


async def test_an_edge_keeps_what_an_unreachable_region_told_also_after_its_restart(
    tmp_path: Path, servers: list[ApiStandIn]
) -> None:
    first, second = servers
    await first.put("ConfigMap", config_map(route()))
    await second.put("ConfigMap", config_map(route(region="eu")))
    await second.put("ConfigMap", config_map(route("code", "mistral", region="eu")))
    async with agent_of(tmp_path, Role.EDGE, first, second):
        await eventually(lambda: models(tmp_path) == {"llama", "mistral"}, "the union is routed")
        await second.stop()
        await first.put("ConfigMap", config_map(route("embed", "bge")))
        await eventually(lambda: models(tmp_path) == {"llama", "mistral", "bge"}, "nothing is lost")
    async with agent_of(tmp_path, Role.EDGE, first, second) as agent:
        await eventually(lambda: agent.written_at is not None, "the restarted agent writes")
        assert models(tmp_path) == {"llama", "mistral", "bge"}


async def test_peers_given_by_name_are_resolved(tmp_path: Path, servers: list[ApiStandIn]) -> None:
    named = route(regions=(RegionTarget(name="eu", address="localhost"),), local=False)
    await servers[0].put("ConfigMap", config_map(named))
    async with agent_of(tmp_path, Role.EDGE, servers[0]):
        await eventually(lambda: models(tmp_path) == {"llama"}, "the route is applied")
    (endpoints,) = [each for each in resources(tmp_path) if each.get("cluster_name", "").startswith("service/")]
    assert "127.0.0.1" in str(endpoints)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of a megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all room that is left."""
    filler = disk / "filler"
    filler.write_bytes(b"x" * shutil.disk_usage(disk).free)
    return filler


async def test_a_full_disk_changes_nothing_and_what_was_missed_is_made_up_for(
    small_disk: Path, servers: list[ApiStandIn]
) -> None:
    server = servers[0]
    await server.put("ConfigMap", config_map(route()))
    async with agent_of(small_disk, Role.REGIONAL, server) as agent:
        await eventually(lambda: models(small_disk) == {"llama"}, "the first list is applied")
        filler = fill(small_disk)
        await server.put("ConfigMap", config_map(route("code", "mistral")))
        await eventually(lambda: len(agent.snapshot.routes if agent.snapshot else ()) == 2, "the change is seen")
        await asyncio.sleep(1.5)  # long enough to fail and to try again
        whole = [
            yaml.safe_load(text) for name, text in contents(small_disk).items() if name.endswith((".yaml", ".json"))
        ]
        assert all(whole)
        assert models(small_disk) == {"llama"}
        filler.unlink()
        await eventually(lambda: models(small_disk) == {"llama", "mistral"}, "there is room again")
