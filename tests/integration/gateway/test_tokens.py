"""JSON Web Tokens: who shows a good one is the tenant that it names, if there is such a tenant."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.integration.gateway.bed import Bed, wait_for
from tests.integration.gateway.tokens import CLAIMS, Signer, encode

from holdfast_gateway.issuers import Issuer
from holdfast_gateway.options import Auth
from holdfast_gateway.tenants import Settings, Tenant

pytestmark = pytest.mark.integration

KEY = "key-of-alice-0001"
TENANTS = (
    Tenant(name="alice", keys=(KEY,)),
    Tenant(name="bob", settings=Settings(models=())),
    Tenant(name="7"),
)
SIGNER, OTHER, STRANGER = Signer(), Signer("k2"), Signer()
ISSUERS = (
    Issuer(secret="ns/one", issuer=CLAIMS["iss"], audiences=("holdfast", "second"), jwks=SIGNER.jwks()),
    Issuer(secret="ns/two", issuer="two", audiences=("holdfast",), jwks=OTHER.jwks(), tenant_claim="team.name"),
)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Two regions and an edge that know the tenants and the issuers."""
    folder = tmp_path_factory.mktemp("tokens")
    made = Bed(folder, regions={"us": 1, "eu": 1}, tenants=TENANTS, issuers=ISSUERS, timing={"auth": Auth.REQUIRED})
    with made.running():
        yield made


def ask(bed: Bed, token: str, **headers: str) -> httpx.Response:
    """One chat."""
    url = f"{bed.gateways['edge'].url}/v1/chat/completions"
    return httpx.post(url, json={"model": "llama"}, headers={"authorization": f"Bearer {token}", **headers}, timeout=20)


GOOD = {
    "own": (SIGNER.token(tenant="alice"), "alice"),
    "second audience": (SIGNER.token(tenant="alice", aud=["x", "second"]), "alice"),
    "number": (SIGNER.token(tenant=7), "7"),
    "other issuer": (OTHER.token(iss="two", team={"name": "alice"}), "alice"),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_good_token_is_its_tenant_and_stays_at_the_gateway(bed: Bed, case: str) -> None:
    token, tenant = GOOD[case]
    answer = ask(bed, token, **{"x-holdfast-tenant": "bob", "x-api-key": KEY})
    assert answer.status_code == 200
    headers = answer.json()["headers"]
    assert (headers["x-holdfast-tenant"], headers["x-holdfast-priority"]) == (tenant, "normal")
    assert not {"authorization", "x-api-key"} & headers.keys()


UNSIGNED = ".".join([encode(b'{"alg": "none"}'), SIGNER.token(tenant="alice").split(".")[1], ""])
INVALID = {
    "expired": SIGNER.token(-120, tenant="alice"),
    "never expires": SIGNER.token(tenant="alice", exp=None),
    "not yet": SIGNER.token(tenant="alice", nbf=4_000_000_000),
    "stranger's key": STRANGER.token(tenant="alice"),
    "other issuer's name": SIGNER.token(tenant="alice", iss="two"),
    "unknown issuer": SIGNER.token(tenant="alice", iss="three"),
    "wrong audience": SIGNER.token(tenant="alice", aud="elsewhere"),
    "no audience": SIGNER.token(tenant="alice", aud=None),
    "changed": SIGNER.token(tenant="bob").replace(".", ".e", 1),
    "unsigned": UNSIGNED,
    "garbage": "eyJ.a.b",
}


@pytest.mark.parametrize("case", INVALID)
@pytest.mark.parametrize("beside", [{}, {"x-api-key": KEY}], ids=["alone", "beside a key"])
def test_an_invalid_token_is_answered_401_also_beside_a_valid_key(bed: Bed, case: str, beside: dict[str, str]) -> None:
    answer = ask(bed, INVALID[case], **beside)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("tenant", [None, "stranger", "", ["alice"], {"name": "alice"}, "alice,bob", " "], ids=str)
def test_a_token_without_a_known_tenant_is_answered_403(bed: Bed, tenant: object) -> None:
    answer = ask(bed, SIGNER.token(tenant=tenant), **{"x-holdfast-tenant": "alice"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "unknown_tenant")
    headers = {"authorization": f"Bearer {SIGNER.token(tenant=tenant)}"}
    assert httpx.get(f"{bed.gateways['us'].url}/v1/models", headers=headers).status_code == 403


def test_what_a_tenant_may_use_holds_for_its_tokens(bed: Bed) -> None:
    answer = ask(bed, SIGNER.token(tenant="bob"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")


def test_keys_go_on_beside_tokens_and_new_public_keys_take_effect(bed: Bed) -> None:
    assert ask(bed, KEY).status_code == 200
    newer = Signer("k9")
    assert ask(bed, newer.token(tenant="alice")).status_code == 401
    bed.issuers = (ISSUERS[0].model_copy(update={"jwks": newer.jwks()}), ISSUERS[1])
    bed.set_tenants(*TENANTS)
    wait_for(lambda: ask(bed, newer.token(tenant="alice")).status_code == 200, "the new public key counts")
    assert ask(bed, SIGNER.token(tenant="alice")).status_code == 401
    assert ask(bed, KEY).status_code == 200
