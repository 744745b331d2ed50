"""Envoy's files for typical cases, as committed text; `REFRESH_GOLDEN=1 pytest tests/unit/gateway` rewrites them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.gateway.tokens import encode_number
from tests.unit.gateway.builders import AP, EU, US, route

from holdfast.api.route import Affinity, EngineProtocol, RevisionShare, Route, TrafficMode
from holdfast_gateway.files import to_yaml
from holdfast_gateway.issuers import Issuer
from holdfast_gateway.options import Auth, Options, PeerTls, Role
from holdfast_gateway.render.files import Files, files, start_files
from holdfast_gateway.state import Snapshot
from holdfast_gateway.tenants import PriorityClass, Settings, Tenant

GOLDEN = Path(__file__).parents[2] / "golden" / "gateway"
DIRECTORY = "/var/lib/holdfast-gateway"
REGIONAL = Options(role=Role.REGIONAL, status_port=9903)
EDGE = Options(role=Role.EDGE)
RELAYED = replace(REGIONAL, relay_port=9904)
ENGINES = ("10.0.0.1", "10.0.0.2")


GUARDED = replace(REGIONAL, auth=Auth.REQUIRED, requests_per_minute=600)
TENANTS = (
    Tenant(name="acme", keys=("key-of-acme-00001", "key-of-acme-00002")),
    Tenant(name="batch", keys=("key-of-batch-0001",), settings=Settings(priority=PriorityClass.LOW, models=())),
    Tenant(name="team.b", keys=(), settings=Settings(requests_per_minute=6000, burst=10, models=("model-of-chat",))),
)


SPENDER = Tenant(name="spender", settings=Settings(requests_per_minute=60, tokens_per_minute=100_000))

JWKS = json.dumps({"keys": [{"e": "AQAB", "kid": "k1", "kty": "RSA", "n": encode_number(2**2047 + 1)}]})
ISSUERS = tuple(
    Issuer(secret=f"holdfast-system/{name}", issuer=f"https://{name}.example", audiences=("holdfast",), jwks=JWKS)
    for name in ("one", "two")
)


SHARES = (RevisionShare(name="c0ffee0002", weight=5), RevisionShare(name="c0ffee0001", weight=95))


def case(options: Options, *served: Route) -> tuple[Snapshot, Options]:
    return Snapshot(served, {made.key: ENGINES for made in served if made.local}), options


CASES = {
    "one-region": case(REGIONAL, route(regions=(US,))),
    "three-regions": case(REGIONAL, route()),
    "region-without-engines": case(REGIONAL, route(local=False)),
    "region-drained": case(REGIONAL, route(regions=(US.model_copy(update={"weight": 0}), EU, AP))),
    "http1-engine": case(REGIONAL, route(engine_protocol=EngineProtocol.HTTP1, health_path="/v1/health")),
    "two-services": case(REGIONAL, route("chat"), route("code", namespace="team", engine_port=9000)),
    "edge-active-active": case(EDGE, route()),
    "edge-active-passive": case(EDGE, route(mode=TrafficMode.ACTIVE_PASSIVE)),
    "mutual-tls": case(replace(REGIONAL, peer_tls="/etc/holdfast/peer-tls"), route()),
    "turning-to-tls": case(
        replace(REGIONAL, peer_tls="/etc/holdfast/peer-tls", peer_tls_mode=PeerTls.ACCEPTED), route(regions=(US, EU))
    ),
    "streams": case(RELAYED, route()),
    "streams-mutual-tls": case(replace(RELAYED, peer_tls="/etc/holdfast/peer-tls"), route(regions=(US, EU))),
    "streams-at-an-edge": case(replace(EDGE, relay_port=9904), route(regions=(US, EU))),
    "tracing": case(
        replace(
            REGIONAL, otlp_endpoint="http://otel:4318", trace_sampling=2.5, resource_attributes="holdfast.region=us"
        ),
        route(regions=(US,)),
    ),
    "access-log": case(replace(EDGE, access_log=True), route(regions=(US,))),
    "ledger": case(replace(RELAYED, access_log=True, ledger=f"{DIRECTORY}/ledger"), route(regions=(US, EU))),
    "ledger-with-content": case(replace(EDGE, ledger=f"{DIRECTORY}/ledger", ledger_content=4096), route(regions=(US,))),
    "tenants": (replace(case(RELAYED, route("chat"), route("code"))[0], tenants=TENANTS), GUARDED),
    "tenants-with-tokens": (
        replace(case(EDGE, route(regions=(US,)))[0], tenants=TENANTS, issuers=ISSUERS),
        replace(EDGE, auth=Auth.REQUIRED),
    ),
    "tenants-of-all-gateways": (
        replace(case(EDGE, route(regions=(US,)))[0], tenants=(*TENANTS, SPENDER)),
        replace(EDGE, auth=Auth.REQUIRED, limits="127.0.0.1:9907"),
    ),
    "no-tenants-yet": case(replace(EDGE, auth=Auth.REQUIRED), route(regions=(US,))),
    "fallback": case(RELAYED, route("chat", fallback="small", regions=(US, EU)), route("small", regions=(US, EU))),
    "front": case(
        replace(EDGE, client_tls="/etc/holdfast/client-tls", cors_origins=("https://chat.example.com",)),
        route(regions=(US,)),
    ),
    "two-revisions": (
        replace(
            case(REGIONAL, route(revisions=SHARES, regions=(US, EU)))[0],
            revisions={"default/chat": dict(zip(ENGINES, ("c0ffee0002", "c0ffee0001"), strict=True))},
        ),
        REGIONAL,
    ),
    "prefix-affinity": case(RELAYED, route(affinity=Affinity(prefix_bytes=2048), regions=(US, EU))),
    "hedging": case(REGIONAL, route(hedge_after=timedelta(seconds=2), regions=(US, EU))),
    "nothing-yet": (Snapshot(), REGIONAL),
}


def built(name: str, directory: str) -> Files:
    snapshot, options = CASES[name]
    return {**start_files(options, directory), **files(snapshot, options, directory)}


@pytest.mark.parametrize("name", CASES)
def test_the_files_of_a_case_are_as_committed(name: str) -> None:
    text = "".join(f"--- # {file}\n{to_yaml(document)}" for file, document in built(name, DIRECTORY).items())
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("REFRESH_GOLDEN") == "1":
        golden.write_text(text)
    assert golden.read_text() == text
