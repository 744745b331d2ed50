"""One limit over all gateways: real Envoys, real limiters, a real Redis."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator

import grpc
import httpx
import pytest
from openai import OpenAI, RateLimitError
from openai.types.chat import ChatCompletion
from redis.asyncio import Redis as RedisClient
from tests.integration.gateway.bed import Bed, Gateway, wait_for
from tests.integration.gateway.load import Load, Outcome, failed, send_load
from tests.integration.gateway.processes import Server
from tests.integration.gateway.redis_server import running

from holdfast_gateway.limiter.decide import count_key
from holdfast_gateway.limiter.store import PREFIX
from holdfast_gateway.options import Auth
from holdfast_gateway.tenants import Settings, Tenant

pytestmark = pytest.mark.integration

TENANTS = tuple(
    Tenant(name=name, keys=(f"key-of-{name}-0001",), settings=Settings(**own))
    for name, own in {
        "shared": {"requests_per_minute": 20},
        "again": {"requests_per_minute": 5},
        "client": {"requests_per_minute": 60, "burst": 1000},
        "caller": {"requests_per_minute": 1, "burst": 1000},
        "tall": {"requests_per_minute": 6_000_000},
        "free": {},
    }.items()
)
STATUS_PORT = 9908
Redis = tuple[Server, str]
"""A running Redis and its URL."""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis for this file."""
    with running(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture(scope="module")
def bed(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Two regions and an edge, each with a limiter that has time: a busy machine lets nothing pass uncounted."""
    flags = ("--limits-store", redis[1], "--limits-store-timeout", "4")
    timing = {"auth": Auth.REQUIRED, "limits_timeout": 5.0}
    folder = tmp_path_factory.mktemp("shared-limits")
    made = Bed(folder, regions={"us": 1, "eu": 1}, tenants=TENANTS, timing=timing, limiter_flags=flags)
    with made.running():
        yield made


@pytest.fixture(scope="module")
def hasty_bed(redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """One region and its limiter, with the time-outs that users have."""
    folder = tmp_path_factory.mktemp("hasty-limits")
    timing = {"auth": Auth.REQUIRED}
    flags = ("--limits-store", redis[1])
    made = Bed(folder, regions={"us": 1}, tenants=TENANTS, timing=timing, limiter_flags=flags)
    with made.running(edge=False):
        yield made


def ask(gateway: Gateway, tenant: str) -> httpx.Response:
    """One chat over a connection of its own."""
    headers = {"authorization": f"Bearer key-of-{tenant}-0001"}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json={"model": "llama"}, headers=headers, timeout=30)


def decisions(gateway: Gateway, outcome: str) -> float:
    """How often a gateway's limiter decided so."""
    text = httpx.get(f"http://{gateway.options.listen}:{STATUS_PORT}/metrics").text
    (found,) = re.findall(rf'^holdfast_limiter_decisions_total{{outcome="{outcome}"}} (\S+)$', text, re.MULTILINE)
    return float(found)


def mean_decision(gateway: Gateway) -> str:
    """Seconds that its limiter took on average since it was started."""
    text = httpx.get(f"http://{gateway.options.listen}:{STATUS_PORT}/metrics").text
    found = dict(re.findall(r"^holdfast_limiter_decision_seconds_(sum|count) (\S+)$", text, re.MULTILINE))
    return f"{float(found['sum']) / float(found['count']):.4f}"


def uncounted_by_envoy(gateway: Gateway) -> int:
    """Requests that passed as the limiter did not answer."""
    return gateway.stat(r"^cluster\.service/default/chat\.ratelimit\.failure_mode_allowed$")


def test_all_gateways_and_the_edge_count_towards_one_limit(bed: Bed) -> None:
    answers = [ask(bed.gateways[("us", "eu", "edge")[number % 3]], "shared") for number in range(30)]
    assert Counter(answer.status_code for answer in answers) == {200: 20, 429: 10}
    assert (answers[0].headers["x-ratelimit-limit"], answers[0].headers["x-ratelimit-remaining"]) == (
        "20, 20;w=60",
        "19",
    )
    refused = answers[-1]
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert "requests" in error["message"]
    assert refused.headers["content-type"] == "application/json"
    assert 1 <= int(refused.headers["retry-after"]) <= 121
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert decisions(bed.gateways["us"], "requests") > 0


def test_whoever_has_no_limit_is_not_asked_about(bed: Bed) -> None:
    before = decisions(bed.gateways["us"], "passed")
    answer = ask(bed.gateways["us"], "free")
    assert answer.status_code == 200
    assert "x-ratelimit-limit" not in answer.headers
    assert decisions(bed.gateways["us"], "passed") == before


def test_a_limit_that_is_changed_finds_what_was_spent(bed: Bed) -> None:
    assert [ask(bed.gateways["us"], "again").status_code for _ in range(5)] == [200] * 5
    raised = TENANTS[1].model_copy(update={"settings": Settings(requests_per_minute=8)})
    bed.set_tenants(*(raised if each.name == "again" else each for each in TENANTS))
    wait_for(lambda: ask(bed.gateways["eu"], "again").headers["x-ratelimit-limit"] == "8, 8;w=60", "eu has it")
    wait_for(lambda: ask(bed.gateways["us"], "again").status_code == 429, "all are spent")


def test_a_client_of_grpc_hears_that_its_limit_is_reached(bed: Bed) -> None:
    us = bed.gateways["us"]
    assert ask(us, "caller").status_code == 200
    with grpc.insecure_channel(us.url.removeprefix("http://")) as channel:
        ready = channel.unary_unary("/inference.GRPCInferenceService/ModelReady")
        with pytest.raises(grpc.RpcError) as caught:
            ready(b"\x0a\x05llama", metadata=[("authorization", "Bearer key-of-caller-0001")], timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_openai_client_waits_as_it_is_told_and_then_gets_its_answer(bed: Bed, redis: Redis) -> None:
    client = OpenAI(base_url=f"{bed.gateways['edge'].url}/v1", api_key="key-of-client-0001", timeout=60)
    # As if the minute before had been full: there is room again as soon as a little of it is forgotten.
    key = count_key("holdfast", [("requests", "client")], 60)
    async with RedisClient.from_url(redis[1]) as store:
        await store.set(f"{PREFIX}:{{{key}}}/-1", 64, px=60_000)

    def chat(retries: int) -> ChatCompletion:
        asking = client.with_options(max_retries=retries).chat.completions
        return asking.create(model="llama", messages=[{"role": "user", "content": "hello"}])

    with pytest.raises(RateLimitError) as caught:
        await asyncio.to_thread(chat, 0)
    assert (caught.value.type, caught.value.code) == ("rate_limit_error", "rate_limit_exceeded")
    told = int(caught.value.response.headers["retry-after"])
    assert 1 <= told <= 4
    start = time.monotonic()
    assert (await asyncio.to_thread(chat, 2)).model == "llama"
    print(f"told to wait {told} s, had its answer after {time.monotonic() - start:.1f} s")


FAULTS: dict[str, Callable[[Bed, Server], None]] = {
    "limiter-killed": lambda bed, _: limiter_of(bed).kill(),
    "limiter-frozen": lambda bed, _: limiter_of(bed).freeze(),
    "redis-killed": lambda _, redis: redis.kill(),
    "redis-frozen": lambda _, redis: redis.freeze(),
}


def limiter_of(bed: Bed) -> Server:
    """The limiter of the only region."""
    found = bed.gateways["us"].limiter
    assert found is not None
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_no_request_fails_for_want_of_a_limiter_or_its_store(hasty_bed: Bed, redis: Redis, fault: str) -> None:
    server, _ = redis
    gateway = hasty_bed.gateways["us"]
    load = Load(rate=60, seconds=6, answers=(0.02,), key="key-of-tall-0001")
    well = asyncio.run(send_load(gateway.url, load))
    mean = mean_decision(gateway)
    before, waited = uncounted_by_envoy(gateway), gateway.stat(r"^cluster\.limits\.upstream_rq_timeout$")
    outcomes = asyncio.run(send_load(gateway.url, load, lambda: FAULTS[fault](hasty_bed, server), at=1.5))
    try:
        print(f"\n{fault}: before it {figures(well)}, of which {mean} s for the limiter; with it {figures(outcomes)}")
        assert not failed(well)
        assert not failed(outcomes)
        if fault.startswith("limiter"):
            assert uncounted_by_envoy(gateway) > before
            # Soon it is not asked any more: of 270 requests after the fault only the first ones wait.
            assert gateway.stat(r"^cluster\.limits\.upstream_rq_timeout$") - waited < 100
        else:
            assert decisions(gateway, "uncounted") > 0
    finally:
        server.thaw()
        if not server.running():
            server.start()
        hasty_bed.repair()
    wait_for(lambda: "x-ratelimit-remaining" in ask(gateway, "tall").headers, "requests are counted again")


def figures(outcomes: list[Outcome]) -> str:
    """One line for people."""
    times = sorted(outcome.seconds for outcome in outcomes)
    middle, late = times[len(times) // 2], times[int(len(times) * 0.99)]
    refused = f"{len(failed(outcomes))} of {len(times)} failed"
    return f"{refused}, p50 {middle:.3f} s, p99 {late:.3f} s, slowest {times[-1]:.3f} s"
