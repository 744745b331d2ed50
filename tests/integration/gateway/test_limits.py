"""Limits of tenants: each has its own, over all its connections; who exceeds it hears when to come again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from tests.integration.gateway.bed import Bed, wait_for

from holdfast_gateway.options import Auth
from holdfast_gateway.tenants import Settings, Tenant

pytestmark = pytest.mark.integration

TENANTS = tuple(
    Tenant(name=name, keys=(f"key-of-{name}-0001",), settings=Settings(**own))
    for name, own in {
        "slow": {"requests_per_minute": 2, "burst": 3},
        "other": {"requests_per_minute": 2, "burst": 3},
        "quick": {"requests_per_minute": 6000, "burst": 1},
        "plain": {},
    }.items()
)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """One region whose gateway counts."""
    timing = {"auth": Auth.REQUIRED, "requests_per_minute": 600_000, "burst": 50}
    made = Bed(tmp_path_factory.mktemp("limits"), regions={"us": 1}, tenants=TENANTS, timing=timing)
    with made.running(edge=False):
        yield made


def ask(bed: Bed, tenant: str) -> httpx.Response:
    """One chat over a connection of its own."""
    headers = {"authorization": f"Bearer key-of-{tenant}-0001"}
    return httpx.post(f"{bed.gateways['us'].url}/v1/chat/completions", json={"model": "llama"}, headers=headers)


def test_a_tenant_gets_its_burst_and_then_429_with_the_time_of_its_next_request_and_others_go_on(bed: Bed) -> None:
    answers = [ask(bed, "slow") for _ in range(5)]
    assert Counter(answer.status_code for answer in answers) == {200: 3, 429: 2}
    assert answers[0].headers["x-ratelimit-limit"] == "3"
    refused = answers[-1]
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.headers["content-type"] == "application/json"
    assert (refused.headers["retry-after"], refused.headers["x-ratelimit-remaining"]) == ("30", "0")
    assert ask(bed, "other").status_code == 200
    assert ask(bed, "plain").status_code == 200
    assert bed.gateways["us"].stat(r"^tenant\.slow\.http_local_rate_limit\.rate_limited$") == 2


def test_what_was_spent_comes_back(bed: Bed) -> None:
    wait_for(lambda: ask(bed, "quick").status_code == 200, "a request passes")
    wait_for(lambda: ask(bed, "quick").status_code == 200, "another one passes")


def test_a_tenant_without_a_limit_of_its_own_has_the_gateways(bed: Bed) -> None:
    assert ask(bed, "plain").headers["x-ratelimit-limit"] == "50"


def test_a_rotated_key_fills_no_bucket(bed: Bed) -> None:
    wait_for(lambda: ask(bed, "slow").status_code == 429, "the bucket is empty")
    newer = [each.model_copy(update={"keys": (*each.keys, f"key-of-{each.name}-0002")}) for each in TENANTS]
    bed.set_tenants(*newer)
    models = f"{bed.gateways['us'].url}/v1/models"
    headers = {"x-api-key": "key-of-plain-0002"}
    wait_for(lambda: httpx.get(models, headers=headers).status_code == 200, "the new keys are valid")
    assert ask(bed, "slow").status_code == 429
