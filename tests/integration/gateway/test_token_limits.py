"""Tokens per minute: spent at one gateway, refused at all; real Envoys, limiters, Redis and spools."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI, RateLimitError
from tests.integration.gateway.bed import Bed, Gateway, wait_for
from tests.integration.gateway.conftest import MakeBed, MakeEngine
from tests.integration.gateway.redis_server import running

from holdfast_gateway.options import Auth
from holdfast_gateway.tenants import Settings, Tenant

pytestmark = pytest.mark.integration

TENANTS = tuple(
    Tenant(name=name, keys=(f"key-of-{name}-0001",), settings=Settings(**own))
    for name, own in {
        "acme": {"tokens_per_minute": 100},
        "quick": {"tokens_per_minute": 10},
        "client": {"tokens_per_minute": 10, "requests_per_minute": 1000},
        "other": {"tokens_per_minute": 100},
    }.items()
)
STATUS_PORT = 9908


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis."""
    with running(tmp_path_factory.mktemp("redis")) as (_, url):
        yield url


@pytest.fixture(scope="module")
def bed(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Two regions and an edge, with a ledger and a limiter each; patient, so that nothing passes uncounted."""
    flags = ("--limits-store", store, "--limits-store-timeout", "4")
    timing = {"auth": Auth.REQUIRED, "limits_timeout": 5.0}
    made = Bed(
        tmp_path_factory.mktemp("token-limits"), regions={"us": 1, "eu": 1}, tenants=TENANTS, timing=timing,
        limiter_flags=flags, ledger=True,
    )  # fmt: skip
    with made.running():
        yield made


def ask(gateway: Gateway, tenant: str, tokens: int = 0) -> httpx.Response:
    """One chat whose answer tells so many tokens."""
    headers = {"authorization": f"Bearer key-of-{tenant}-0001"}
    usage = {"prompt_tokens": tokens // 2, "completion_tokens": tokens - tokens // 2, "total_tokens": tokens}
    body = {"model": "llama", "say": {"usage": usage}}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30)


def metric(gateway: Gateway, name: str) -> float:
    """One of the limiter's."""
    text = httpx.get(f"http://{gateway.options.listen}:{STATUS_PORT}/metrics").text
    (found,) = re.findall(rf"^holdfast_limiter_{name} (\S+)$", text, re.MULTILINE)
    return float(found)


def spend(gateway: Gateway, tenant: str, tokens: int) -> float:
    """Seconds from an answer that cost so many tokens until they were counted."""
    before = metric(gateway, "tokens_total")
    assert ask(gateway, tenant, tokens).status_code == 200
    ended = time.monotonic()
    wait_for(lambda: metric(gateway, "tokens_total") == before + tokens, "they are counted")
    return time.monotonic() - ended


def test_tokens_spent_at_one_gateway_are_refused_at_all_and_others_go_on(bed: Bed) -> None:
    us, eu, edge = (bed.gateways[name] for name in ("us", "eu", "edge"))
    lags = [spend(us, "acme", 60), spend(eu, "acme", 39)]
    assert ask(edge, "acme").status_code == 200, "there is one left"
    lags.append(spend(edge, "acme", 200))
    print("counted after " + ", ".join(f"{lag:.2f} s" for lag in lags))
    for gateway in (us, eu, edge):
        refused = ask(gateway, "acme")
        assert refused.status_code == 429
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert "tokens" in error["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 120
        assert refused.headers["x-ratelimit-remaining"] == "0"
        assert ask(gateway, "other").status_code == 200
        assert metric(gateway, r'decisions_total{outcome="tokens"}') >= 1


def test_a_refused_request_spends_nothing(bed: Bed) -> None:
    us = bed.gateways["us"]
    spend(us, "quick", 11)
    first = int(ask(us, "quick", 1_000_000).headers["retry-after"])
    spend(us, "other", 1)
    assert int(ask(us, "quick").headers["retry-after"]) <= first


def test_the_openai_client_sees_a_rate_limit_error_that_names_tokens(bed: Bed) -> None:
    us = bed.gateways["us"]
    spend(us, "client", 10)
    client = OpenAI(base_url=f"{us.url}/v1", api_key="key-of-client-0001", max_retries=0, timeout=30)
    with pytest.raises(RateLimitError, match="tokens") as caught:
        client.chat.completions.create(model="llama", messages=[{"role": "user", "content": "hello"}])
    assert (caught.value.type, caught.value.code) == ("rate_limit_error", "rate_limit_exceeded")


def test_of_a_stream_the_tokens_count_that_the_relay_knows(make_bed: MakeBed, real: MakeEngine) -> None:
    tenant = Tenant(name="streamer", keys=("key-of-streamer-0001",), settings=Settings(tokens_per_minute=20))
    bed = make_bed(
        regions={"us": 1}, tenants=(tenant,), timing={"auth": Auth.REQUIRED, "limits_timeout": 5.0}, make_engine=real,
        limiter_flags=("--limits-store", "memory"), ledger=True, relay_flags=(),
    )  # fmt: skip
    bed.start(edge=False)
    us = bed.gateways["us"]
    headers = {"authorization": "Bearer key-of-streamer-0001"}
    body = {"model": "llama", "prompt": "hello", "max_tokens": 24, "ignore_eos": True, "stream": True}

    def stream() -> httpx.Response:
        return httpx.post(f"{us.url}/v1/completions", json=body, headers=headers, timeout=60)

    answer = stream()
    assert answer.status_code == 200
    assert '"completion_tokens"' not in answer.text, "the client did not ask for them"
    wait_for(lambda: metric(us, "tokens_total") > 24, "prompt and answer are counted")
    assert stream().status_code == 429
