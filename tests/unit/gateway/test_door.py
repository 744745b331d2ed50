"""Properties of the front door's files."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.unit.gateway.builders import route
from tests.unit.gateway.resources import table
from tests.unit.gateway.test_render import GUARDED, find, snapshots

from holdfast.api.names import TENANT_HEADER
from holdfast_gateway.files import to_yaml
from holdfast_gateway.render import door
from holdfast_gateway.render.files import PRIVATE, files
from holdfast_gateway.render.spare import spares
from holdfast_gateway.render.values import service_cluster, spare_cluster, stream_cluster
from holdfast_gateway.state import Snapshot
from holdfast_gateway.tenants import Settings, Tenant, may_use


@given(snapshots())
def test_keys_are_in_private_files_alone(snapshot: Snapshot) -> None:
    holding = {name for name, document in files(snapshot, GUARDED, "/d").items() if "key-of-" in to_yaml(document)}
    assert holding <= PRIVATE


@given(snapshots())
def test_a_request_reaches_a_service_exactly_for_the_tenants_that_may_use_its_model(snapshot: Snapshot) -> None:
    built = files(snapshot, GUARDED, "/d")
    for made in snapshot.routes:
        forwarding = [
            each for each in table(built, "client", made.key) if "route" in each and names_model(each["match"])
        ]
        for name in [*(tenant.name for tenant in snapshot.tenants), "stranger", ""]:
            tenant = next((each for each in snapshot.tenants if each.name == name), None)
            reached = {each["route"]["cluster"] for each in forwarding if opens(each["match"], made.model, name)}
            way = spare_cluster if made.key in spares(snapshot.routes) else service_cluster
            ways = {way(made.key), stream_cluster(made.key), service_cluster(made.key)}  # the last by KServe's protocol
            wanted = ways if tenant and may_use(tenant, made.model) else set()
            assert reached == wanted


def names_model(match: dict[str, Any]) -> bool:
    """Whether a route is for one model."""
    return "dynamic_metadata" in match or match.get("prefix") == "/v2/models/"


def opens(match: dict[str, Any], model: str, tenant: str) -> bool:
    """Whether a route takes requests for the model from the tenant, by any protocol."""
    return admits(match, tenant) and (
        model in [value for noted in find(match, "value") for value in find(noted, "exact")]
        or match.get("prefix") == "/v2/models/"
    )


def admits(match: dict[str, Any], tenant: str) -> bool:
    """Whether a route takes requests from the tenant."""
    (who,) = [each for each in match["headers"] if each["name"] == TENANT_HEADER]
    return bool(re.fullmatch(who["string_match"]["safe_regex"]["regex"], tenant))


@given(snapshots())
def test_what_names_no_model_is_answered_by_a_service_that_the_tenant_may_use(snapshot: Snapshot) -> None:
    asked = [
        each
        for each in table(files(snapshot, GUARDED, "/d"), "client")
        if re.fullmatch(each["match"].get("safe_regex", {}).get("regex", ""), "/v2/health/ready")
        or each["match"].get("prefix") == "/v2/"
    ]
    for tenant in snapshot.tenants:
        mine = {service_cluster(made.key) for made in snapshot.routes if may_use(tenant, made.model)}
        ways = [each for each in asked if "headers" not in each["match"] or admits(each["match"], tenant.name)]
        assert {each["route"]["cluster"] for each in ways[:1] if "route" in each} <= mine
        assert ("route" in ways[0]) == bool(mine)


@given(snapshots(), snapshots())
def test_other_keys_leave_the_limits_alone_as_their_buckets_would_be_filled_again(
    first: Snapshot, second: Snapshot
) -> None:
    rotated = tuple(each.model_copy(update={"keys": ("another-key-000001",)}) for each in first.tenants)
    before, after = (files(each, GUARDED, "/d") for each in (first, replace(first, tenants=rotated)))
    assert {name for name in before if before[name] != after[name]} <= {door.KEYS}


@given(st.integers(1, 6_000_000), st.integers(1, 1000))
def test_a_bucket_is_never_filled_faster_than_its_limit_nor_more_often_than_envoy_allows(
    per_minute: int, burst: int
) -> None:
    (bucket,) = find(door.rate_limit("acme", per_minute, burst), "token_bucket")
    interval = float(bucket["fill_interval"].removesuffix("s"))
    assert interval >= door.SHORTEST_FILL
    assert bucket["tokens_per_fill"] * 60 <= per_minute * interval * (1 + 1e-9)
    assert bucket["tokens_per_fill"] * 60 >= per_minute * interval * 0.97


@pytest.mark.parametrize(
    ("own", "expected"),
    [({}, (60, 5)), ({"requests_per_minute": 10}, (10, 10)), ({"requests_per_minute": 10, "burst": 3}, (10, 3)),
     ({"burst": 7}, (60, 7))],
)  # fmt: skip
def test_a_tenants_own_limit_goes_before_the_default(own: dict[str, int], expected: tuple[int, int]) -> None:
    options = replace(GUARDED, requests_per_minute=60, burst=5)
    allowance = door.allowance(Tenant(name="acme", settings=Settings(**own)), options)
    assert (allowance.requests_per_minute, allowance.burst) == expected


def test_without_any_limit_nothing_is_counted() -> None:
    built = files(Snapshot((route(),), tenants=(Tenant(name="acme"),)), GUARDED, "/d")
    assert not list(find(built[door.TENANTS], "token_bucket"))
