"""Changes on purpose cut nothing: new services, engines that leave, regions that drain, gateways that stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.integration.gateway.bed import Bed, status_of, wait_for
from tests.integration.gateway.load import Load, failed, send_load, summary

from holdfast.api.route import Route
from holdfast_gateway.state import Snapshot

pytestmark = pytest.mark.integration

LONG = Load(rate=20, seconds=2, answers=(1.5,))


async def test_a_service_that_is_added_or_removed_cuts_no_request_of_another(make_bed: Callable[..., Bed]) -> None:
    bed = make_bed(regions={"us": 1})
    bed.start(edge=False)
    gateway, snapshot = bed.gateways["us"], bed.snapshot("us")
    other = snapshot.routes[0].model_copy(update={"service": "other", "model": "mistral"})
    both = Snapshot((*snapshot.routes, other), {**snapshot.engines, other.key: bed.engine_addresses("us")})
    running = asyncio.create_task(send_load(gateway.url, LONG))
    await asyncio.sleep(0.5)
    gateway.apply(both)
    await asyncio.to_thread(wait_for, lambda: serves(gateway.url, "mistral"), "the new service is routed")
    gateway.apply(snapshot)
    await asyncio.to_thread(wait_for, lambda: not serves(gateway.url, "mistral"), "it is gone again")
    outcomes = await running
    print(summary(outcomes))
    assert failed(outcomes) == []


async def test_an_engine_that_leaves_finishes_its_requests_and_gets_no_more(make_bed: Callable[..., Bed]) -> None:
    bed = make_bed(regions={"us": 2})
    bed.start(edge=False)
    gateway, snapshot = bed.gateways["us"], bed.snapshot("us")
    stays, leaves = bed.engine_addresses("us")
    running = asyncio.create_task(send_load(gateway.url, LONG))
    await asyncio.sleep(0.5)
    gateway.apply(Snapshot(snapshot.routes, {snapshot.routes[0].key: (stays,)}))
    outcomes = await running
    print(summary(outcomes))
    assert failed(outcomes) == []
    after = await send_load(gateway.url, Load(rate=20, seconds=1, answers=(0.02,)))
    assert failed(after) == []
    assert leaves.endswith("11")
    assert all('"engine": "us-0"' in outcome.detail for outcome in after)


async def test_a_region_of_weight_0_gets_no_more_requests_and_loses_none(make_bed: Callable[..., Bed]) -> None:
    bed = make_bed(regions={"us": 1, "eu": 1})
    bed.start()
    edge, route = bed.gateways["edge"], bed.route("us")
    running = asyncio.create_task(send_load(edge.url, LONG))
    await asyncio.sleep(0.5)
    edge.apply(Snapshot((drained(route, "us"),)))
    assert failed(await running) == []
    after = await send_load(edge.url, Load(rate=20, seconds=1, answers=(0.02,)))
    assert {outcome.region for outcome in after} == {"eu"}


async def test_a_gateway_that_is_told_to_stop_finishes_its_requests_while_others_take_new_ones(
    make_bed: Callable[..., Bed],
) -> None:
    bed = make_bed(regions={"us": 1, "eu": 1})
    bed.start()
    leaving = bed.gateways["us"]
    outcomes = await send_load(bed.gateways["edge"].url, LONG, leaving.server.terminate, at=0.5)
    print(summary(outcomes))
    assert failed(outcomes) == []
    assert await asyncio.to_thread(leaving.server.wait, 20) == 0
    assert "all requests have ended" in leaving.server.log()
    assert status_of(f"{leaving.url}/ready") == 0


def drained(route: Route, region: str) -> Route:
    """The route with one region taken out of service."""
    targets = [target.model_copy(update={"weight": 0}) if target.name == region else target for target in route.regions]
    return route.model_copy(update={"regions": tuple(targets)})


def serves(url: str, model: str) -> bool:
    """Whether the gateway lists a model."""
    return status_of(f"{url}/v1/models/{model}") == 200
