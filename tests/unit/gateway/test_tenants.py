"""Tenants are read with suspicion; what is broken is reported without a key, and what was good stays."""

from __future__ import annotations

import base64
import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from holdfast_gateway.secrets import read_secrets
from holdfast_gateway.tenants import PriorityClass, Settings, Tenant, one_tenant_per_name, read_tenant

KEY, OTHER = "secret-key-number-1", "secret-key-number-2"


def secret(
    tenant: str = "acme", name: str | None = None, since: str = "2030-01-01T00:00:00Z", **data: str | bytes
) -> dict[str, Any]:
    """A Secret as the API server gives it; `_` in an entry's name stands for `-`, `settings` for `tenant.yaml`."""
    entries = {"tenant.yaml" if entry == "settings" else entry.replace("_", "-"): text for entry, text in data.items()}
    encoded = {
        entry: base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()
        for entry, text in entries.items()
    }
    labels = {"serving.holdfast.dev/tenant": tenant}
    meta = {"namespace": "holdfast-system", "name": name or tenant, "labels": labels, "creationTimestamp": since}
    return {"metadata": meta, "data": encoded}


def one(*secrets: dict[str, Any]) -> tuple[tuple[Tenant, ...], tuple[str, ...]]:
    read = read_secrets("tenant", read_tenant, secrets, {})
    assert read.problems == ()
    return one_tenant_per_name(read.found)


def test_a_tenant_has_all_its_keys_and_its_settings() -> None:
    text = "models: [llama]\nrequestsPerMinute: 60\nburst: 5\npriority: high\n"
    ((found,), problems) = one(secret(api_key=KEY + "\n", api_key_next=OTHER, note="x", settings=text))
    assert (found.name, found.keys, problems) == ("acme", (KEY, OTHER), ())
    high = PriorityClass.HIGH
    assert found.settings == Settings(models=("llama",), requests_per_minute=60, burst=5, priority=high)


def test_without_settings_a_tenant_may_use_every_model() -> None:
    ((found,), _) = one(secret(api_key=KEY))
    assert found.settings == Settings(models=None, requests_per_minute=None, burst=None, priority=PriorityClass.NORMAL)


BROKEN: list[dict[str, Any]] = [
    {},
    {"note": "x"},
    {"api_key": "short"},
    {"api_key": "with spaces in the key"},
    {"api_key": b"\xff" * 20},
    {"api_key": "x" * 1025},
    {"api_key": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"},
    {"api_key": KEY, "api_key_next": "short"},
    {"api_key": KEY, "settings": "priority: urgent"},
    {"api_key": KEY, "settings": "requestsPerMinute: 0"},
    {"api_key": KEY, "settings": "model: [llama]"},
    {"api_key": KEY, "settings": "[1"},
    {"api_key": KEY, "settings": "7"},
]


@pytest.mark.parametrize("data", BROKEN, ids=lambda data: " ".join(map(str, data.values()))[:40])
def test_a_broken_tenant_is_reported_without_its_key_and_its_last_good_version_stays(data: dict[str, Any]) -> None:
    good = Tenant(name="acme", keys=(KEY,))
    read = read_secrets("tenant", read_tenant, [secret(**data)], {"holdfast-system/acme": good})
    assert read.found == {"holdfast-system/acme": good}
    (problem,) = read.problems
    assert "holdfast-system/acme" in problem
    assert "last good version stays" in problem
    for entry, text in data.items():
        assert not entry.startswith("api") or str(text) not in problem


def test_a_tenant_whose_secret_is_gone_is_gone() -> None:
    assert (
        read_secrets("tenant", read_tenant, [], {"holdfast-system/acme": Tenant(name="acme", keys=(KEY,))}).found == {}
    )


def test_what_the_elder_secret_has_a_younger_one_cannot_take() -> None:
    elder = secret("acme", api_key=KEY, since="2030-01-01T00:00:00Z")
    younger = secret("aardvark", api_key=KEY, api_key_b=OTHER, since="2031-01-01T00:00:00Z")
    twin = secret("acme", "acme-twin", api_key="another-key-of-acme", since="2032-01-01T00:00:00Z")
    tenants, problems = one(elder, younger, twin)
    assert [(each.name, each.keys) for each in tenants] == [("aardvark", (OTHER,)), ("acme", (KEY,))]
    assert len(problems) == 2
    assert KEY not in str(problems)


def test_a_key_is_not_in_a_tenants_text() -> None:
    assert KEY not in repr(Tenant(name="acme", keys=(KEY,)))


CONTENT = st.binary(max_size=40) | st.text(max_size=40) | st.sampled_from([KEY, OTHER, "models: [a]", "{}", "a: 1"])
ENTRIES = st.dictionaries(st.sampled_from(["api_key", "api_key_b", "api_key_", "settings", "x"]), CONTENT)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "-", ""]), ENTRIES), max_size=4))
def test_no_content_of_secrets_stops_the_agent_or_lets_two_tenants_share_a_key(
    given_: list[tuple[str, dict[str, Any]]],
) -> None:
    secrets = [secret(tenant, f"s{number}", **data) for number, (tenant, data) in enumerate(given_)]
    read = read_secrets("tenant", read_tenant, secrets, {})
    assert len(read.found) + len(read.problems) == len(secrets)
    tenants, _ = one_tenant_per_name(read.found)
    keys = [key for each in tenants for key in each.keys]
    assert len(keys) == len(set(keys))
    assert len(tenants) == len({each.name for each in tenants})
    assert all(Tenant.parse(json.loads(json.dumps(each.wire()))) == each for each in tenants)
