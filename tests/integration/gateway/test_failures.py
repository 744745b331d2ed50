"""Nobody notices when an engine or a whole regional gateway is killed or frozen: real Envoys under open-loop load."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.integration.gateway.bed import Bed, status_of, wait_for
from tests.integration.gateway.load import Load, failed, send_load, summary
from tests.integration.gateway.processes import Server

from holdfast.api.route import EngineProtocol

pytestmark = pytest.mark.integration

KILL = pytest.param(Server.kill, id="killed")
FREEZE = pytest.param(Server.freeze, id="frozen")
Fault = Callable[[Server], None]
LOCAL_RETRIES = r"^cluster\.local/default/chat\.upstream_rq_retry_success$"


@pytest.mark.parametrize("fault", [KILL, FREEZE])
async def test_no_request_fails_when_one_of_two_engines_is_lost(whole_bed: Bed, fault: Fault) -> None:
    before = whole_bed.gateways["us"].stat(LOCAL_RETRIES)
    outcomes = await send_load(whole_bed.gateways["us"].url, Load(), lambda: fault(whole_bed.engines["us-0"]))
    print(summary(outcomes))
    assert failed(outcomes) == []
    assert whole_bed.gateways["us"].stat(LOCAL_RETRIES) > before, "the other local engine takes over"


@pytest.mark.parametrize("fault", [KILL, FREEZE])
async def test_no_request_fails_when_a_region_loses_all_engines_behind_a_living_gateway(
    whole_bed: Bed, fault: Fault
) -> None:
    def lose_all() -> None:
        fault(whole_bed.engines["us-0"])
        fault(whole_bed.engines["us-1"])

    outcomes = await send_load(whole_bed.gateways["us"].url, Load(), lose_all)
    print(summary(outcomes))
    assert failed(outcomes) == []
    assert {outcome.region for outcome in outcomes} >= {"us", "eu"}, "the next region in order takes over"


@pytest.mark.parametrize("fault", [KILL, FREEZE])
async def test_no_request_fails_when_a_whole_regional_gateway_is_lost(whole_bed: Bed, fault: Fault) -> None:
    outcomes = await send_load(whole_bed.gateways["edge"].url, Load(), lambda: fault(whole_bed.gateways["eu"].server))
    print(summary(outcomes))
    assert failed(outcomes) == []
    assert {outcome.region for outcome in outcomes} >= {"us", "ap"}


async def test_no_request_fails_when_an_engine_that_speaks_http1_is_killed(
    make_bed: Callable[..., Bed],
) -> None:
    bed = make_bed(regions={"us": 2}, protocol=EngineProtocol.HTTP1)
    bed.start(edge=False)
    outcomes = await send_load(bed.gateways["us"].url, Load(), bed.engines["us-0"].kill)
    print(summary(outcomes))
    assert failed(outcomes) == []


async def test_requests_reach_engines_although_every_health_check_fails(make_bed: Callable[..., Bed]) -> None:
    bed = make_bed(regions={"us": 1, "eu": 1})
    bed.start()
    for region in bed.regions:
        for engine in bed.engine_addresses(region):
            assert bed.set_health(engine, 500) == 200
    for region in bed.regions:
        path = f"{bed.gateways[region].peer_url}/ready/default/chat"
        wait_for(lambda path=path: status_of(path) == 503, f"{region} knows that its engine is unwell")
    edge = bed.gateways["edge"]
    wait_for(lambda: edge.healthy_regions() == 0, "the edge knows that no region is well")
    outcomes = await send_load(edge.url, Load(rate=20, seconds=1, answers=(0.02,)))
    print(summary(outcomes))
    assert failed(outcomes) == []


async def test_a_killed_envoy_is_started_again_and_serves_from_its_files_with_no_agent(
    make_bed: Callable[..., Bed],
) -> None:
    bed = make_bed(regions={"us": 1})
    bed.start(edge=False)
    gateway = bed.gateways["us"]
    before = gateway.envoy_pid()
    gateway.kill_envoy()
    wait_for(lambda: gateway.envoy_pid() not in (0, before), "another Envoy runs")
    bed.wait_ready(["us"])
    outcomes = await send_load(gateway.url, Load(rate=20, seconds=1, answers=(0.02,)))
    assert failed(outcomes) == []
