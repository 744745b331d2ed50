"""Issuers are read with suspicion: their public keys reach Envoy only if it can use them."""

from __future__ import annotations

import base64
import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from holdfast_gateway.issuers import Issuer, read_issuer
from holdfast_gateway.secrets import read_secrets

RSA = {"kty": "RSA", "n": "AQAB", "e": "AQAB"}
GOOD = {"issuer": "https://issuer.example\n", "audiences": "a, b\nc", "jwks.json": json.dumps({"keys": [RSA]})}


def secret(**data: str) -> dict[str, Any]:
    """A Secret as the API server gives it."""
    encoded = {entry: base64.b64encode(text.encode()).decode() for entry, text in data.items()}
    return {"metadata": {"namespace": "ns", "name": "idp", "labels": {}}, "data": encoded}


def test_an_issuer_is_read() -> None:
    assert read_issuer(secret(**GOOD, **{"tenant-claim": "team.name"})) == Issuer(
        secret="ns/idp",
        issuer="https://issuer.example",
        audiences=("a", "b", "c"),
        jwks=json.dumps({"keys": [dict(sorted(RSA.items()))]}),
        tenant_claim="team.name",
    )
    assert read_issuer(secret(**GOOD)).tenant_claim == "tenant"


BROKEN: list[dict[str, Any]] = [
    {"issuer": ""},
    {"audiences": " "},
    {"jwks.json": ""},
    {"jwks.json": "{}"},
    {"jwks.json": json.dumps({"keys": []})},
    {"jwks.json": json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]})},
    {"jwks.json": json.dumps({"keys": [RSA | {"d": "cHJpdmF0ZQ"}]})},
    {"jwks.json": json.dumps({"keys": [RSA | {"n": "not base64!"}]})},
    {"jwks.json": json.dumps({"keys": [RSA, {"kty": "EC", "x": "AQAB"}]})},
]


@pytest.mark.parametrize("change", BROKEN, ids=str)
def test_a_broken_issuer_is_reported_with_what_to_do_and_its_last_good_version_stays(change: dict[str, str]) -> None:
    good = read_issuer(secret(**GOOD))
    read = read_secrets("issuer", read_issuer, [secret(**(GOOD | change))], {"ns/idp": good})
    assert read.found == {"ns/idp": good}
    assert "entry" in read.problems[0]
    assert "cHJpdmF0ZQ" not in read.problems[0]


VALUES = st.recursive(st.none() | st.text(max_size=4) | st.integers(), lambda inner: st.lists(inner, max_size=2)
                      | st.dictionaries(st.sampled_from(["keys", "kty", "n", "e"]), inner), max_leaves=6)  # fmt: skip


@given(VALUES | st.fixed_dictionaries({"keys": st.lists(VALUES, max_size=2)}))
def test_no_key_set_stops_the_agent(keys: object) -> None:
    read = read_secrets("issuer", read_issuer, [secret(**(GOOD | {"jwks.json": json.dumps(keys)}))], {})
    assert len(read.found) + len(read.problems) == 1
