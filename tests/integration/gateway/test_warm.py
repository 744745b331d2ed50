"""Warm engines: Envoy gets as many as the route says; a warm one takes the place of one that is lost."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from kubernetes.aio import client
from tests.integration.gateway.api_stand_in import ApiStandIn
from tests.integration.gateway.bed import Bed, Gateway, wait_for
from tests.integration.gateway.load import Load, failed, send_load, summary

from holdfast.api.names import MANAGED_BY_LABEL, MANAGER, SERVICE_LABEL
from holdfast.api.route import Route
from holdfast.mirror import Pace
from holdfast_gateway.agent import Agent
from holdfast_gateway.options import Options, Role
from holdfast_gateway.sources import source

pytestmark = pytest.mark.integration

QUICK = Pace(list_timeout=2, watch=5, watch_grace=0.5, relist=3600, retry_first=0.05, retry_most=0.1)
LIGHT = Load(rate=40, seconds=0.5, answers=(0.02,))
LONG = Load(rate=20, seconds=2.5, answers=(0.02, 1.0))


@dataclass
class Region:
    """One region with two engines, its gateway, and the API server that its agent follows."""

    bed: Bed
    server: ApiStandIn

    @property
    def gateway(self) -> Gateway:
        return self.bed.gateways["us"]

    async def say(self, number: int, *, ready: bool = True, terminating: bool = False) -> None:
        """The Pod of an engine, as its kubelet reports it; the one of the lower number has been ready longer."""
        meta: dict[str, Any] = {
            "namespace": "default",
            "name": f"chat-{number}",
            "uid": f"uid-{number}",
            "labels": {SERVICE_LABEL: "chat", MANAGED_BY_LABEL: MANAGER},
        }
        if terminating:
            meta["deletionTimestamp"] = "2030-01-01T01:00:00Z"
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": f"2030-01-01T00:00:0{number}Z"}
        status = {
            "phase": "Running",
            "podIP": self.bed.engine_addresses("us")[number],
            "conditions": [condition],
            "containerStatuses": [{"name": "engine", "started": True, "ready": ready}],
        }
        await self.server.put("Pod", {"metadata": meta, "status": status})

    async def route(self, routed: int | None) -> None:
        """The route that the operator writes."""
        made: Route = self.bed.route("us").model_copy(update={"routed": routed})
        meta = {"namespace": "default", "name": "chat-route"}
        await self.server.put("ConfigMap", {"metadata": meta, "data": {"route.json": json.dumps(made.wire())}})

    async def answering(self) -> set[str]:
        """The engines that answer a few requests; all of them must be answered."""
        outcomes = await send_load(self.gateway.url, LIGHT)
        assert failed(outcomes) == []
        return {json.loads(outcome.detail)["engine"] for outcome in outcomes}

    async def routes(self, *numbers: int) -> None:
        """Until Envoy has exactly these engines, all healthy."""
        wanted = {self.bed.engine_addresses("us")[number] for number in numbers}
        await asyncio.to_thread(wait_for, lambda: self._hosts() == dict.fromkeys(wanted, "healthy"), f"{numbers}")

    def _hosts(self) -> dict[str, str]:
        """Engine → its health flags, as Envoy knows them."""
        with urllib.request.urlopen(f"{self.gateway.admin_url}/clusters", timeout=5) as response:
            lines = [line.split("::") for line in response.read().decode().splitlines()]
        local = [line for line in lines if line[0] == "local/default/chat" and line[2] == "health_flags"]
        return {line[1].partition(":")[0]: line[3] for line in local}


@pytest.fixture(scope="module")
def two_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A region with two engines; use it through `region`."""
    bed = Bed(tmp_path_factory.mktemp("warm"), regions={"us": 2})
    with bed.running(edge=False):
        yield bed


@pytest.fixture
async def region(two_engines: Bed) -> AsyncIterator[Region]:
    """Both engines are well and one of them takes requests."""
    server = ApiStandIn()
    await server.start()
    found = Region(two_engines, server)
    found.gateway.apply(two_engines.snapshot("us"))
    await asyncio.to_thread(two_engines.repair)
    await found.route(1)
    for number in (0, 1):
        await found.say(number)
    changed = asyncio.Event()
    async with client.ApiClient(client.Configuration(host=server.url)) as api:
        followed = source("us", client.CoreV1Api(api), Options(role=Role.REGIONAL), changed, QUICK)
        agent = Agent(found.gateway.directory, found.gateway.options, [followed], changed)
        working = asyncio.create_task(agent.run())
        await found.routes(0)
        yield found
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    await server.stop()


async def test_a_warm_engine_answers_once_the_route_says_so_and_no_request_fails_on_the_way(region: Region) -> None:
    assert await region.answering() == {"us-0"}

    running = asyncio.create_task(send_load(region.gateway.url, LONG))
    await asyncio.sleep(0.3)
    await region.route(2)
    await region.routes(0, 1)
    # The other may be left alone meanwhile: it has the long requests of before, and the idlest engine is asked.
    assert "us-1" in await region.answering()
    await region.route(1)
    await region.routes(0)
    outcomes = await running

    print(summary(outcomes))
    assert failed(outcomes) == []
    assert {json.loads(outcome.detail)["engine"] for outcome in outcomes} == {"us-0", "us-1"}
    assert await region.answering() == {"us-0"}


async def test_a_warm_engine_takes_the_place_of_one_that_is_told_to_stop_and_no_request_fails(region: Region) -> None:
    running = asyncio.create_task(send_load(region.gateway.url, LONG))
    await asyncio.sleep(0.5)
    await region.say(0, terminating=True)
    outcomes = await running

    print(summary(outcomes))
    assert failed(outcomes) == []
    assert await region.answering() == {"us-1"}


async def test_a_warm_engine_takes_the_place_of_one_that_was_killed(region: Region) -> None:
    region.bed.engines["us-0"].kill()
    await region.say(0, ready=False)
    await region.routes(1)

    assert await region.answering() == {"us-1"}


async def test_an_engine_that_looks_unready_goes_on_answering_while_no_other_is_ready(region: Region) -> None:
    await region.say(1, ready=False)
    await region.say(0, ready=False)
    await region.routes(0, 1)

    assert await region.answering() == {"us-0", "us-1"}
