"""Tenants: who has no key hears 401, who may not use a model 403; engines learn who asks and never see a key."""

from __future__ import annotations

import http.client
import itertools
import json
import stat
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from tests.integration.gateway.bed import Bed, wait_for

from holdfast_gateway.options import Auth
from holdfast_gateway.tenants import PriorityClass, Settings, Tenant

pytestmark = pytest.mark.integration

ALICE, BOB, CAROL, NEW = "key-of-alice-0001", "key-of-bob-000001", "key-of-carol-0001", "key-of-alice-0002"
TENANTS = (
    Tenant(name="alice", keys=(ALICE,), settings=Settings(models=("llama",))),
    Tenant(name="bob", keys=(BOB,), settings=Settings(models=("other",), priority=PriorityClass.HIGH)),
    Tenant(name="carol", keys=(CAROL,), settings=Settings(priority=PriorityClass.LOW)),
)
LLAMA = {"model": "llama"}


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Two regions and an edge that know the tenants."""
    made = Bed(
        tmp_path_factory.mktemp("tenants"),
        regions={"us": 1, "eu": 1},
        tenants=TENANTS,
        timing={"auth": Auth.REQUIRED, "access_log": True},
    )
    with made.running():
        yield made


def ask(bed: Bed, headers: dict[str, str], body: Any = LLAMA, gateway: str = "edge") -> httpx.Response:
    """One chat."""
    return httpx.post(f"{bed.gateways[gateway].url}/v1/chat/completions", json=body, headers=headers, timeout=20)


def bearer(key: str) -> dict[str, str]:
    """The header of OpenAI's clients."""
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("gateway", ["us", "edge"])
@pytest.mark.parametrize(
    "headers", [bearer(ALICE), {"x-api-key": ALICE}, {"api-key": ALICE}], ids=["authorization", "x-api-key", "api-key"]
)
def test_a_key_opens_the_door_and_the_engine_learns_who_asks_and_not_the_key(
    bed: Bed, gateway: str, headers: dict[str, str]
) -> None:
    answer = ask(bed, headers | {"x-holdfast-tenant": "bob"}, gateway=gateway)
    assert answer.status_code == 200
    assert answer.json()["headers"]["x-holdfast-tenant"] == "alice"
    assert ALICE not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        {"authorization": "Bearer"},
        {"authorization": f"Basic {ALICE}"},
        {"x-holdfast-tenant": "alice"},
        bearer("eyJ.a.b"),
    ],
    ids=["none", "wrong", "empty", "basic", "name alone", "like a token"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/anything"])
def test_without_a_valid_key_there_is_no_answer_but_401(bed: Bed, headers: dict[str, str], path: str) -> None:
    answer = httpx.post(f"{bed.gateways['us'].url}{path}", json=LLAMA, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_tenant_that_may_not_use_a_model_hears_403_and_of_its_own_models_alone(bed: Bed) -> None:
    refused = ask(bed, bearer(BOB))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
    assert models_of(bed, BOB) == []
    assert models_of(bed, ALICE) == models_of(bed, CAROL) == ["llama"]
    unknown = ask(bed, bearer(BOB), {"model": "nothing"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert "llama" not in unknown.text
    assert "llama" in ask(bed, bearer(CAROL), {"model": "nothing"}).json()["error"]["message"]
    assert httpx.get(f"{bed.gateways['us'].url}/v1/models/llama", headers=bearer(BOB)).status_code == 404


def models_of(bed: Bed, key: str) -> list[str]:
    """The models that a tenant is shown."""
    listing = httpx.get(f"{bed.gateways['us'].url}/v1/models", headers=bearer(key))
    return [card["id"] for card in listing.json()["data"]]


@pytest.mark.parametrize(
    ("tenant", "asked", "given"),
    [
        (ALICE, None, "normal"), (ALICE, "low", "low"), (ALICE, "high", "normal"), (ALICE, "HIGH", "normal"),
        (ALICE, "high, low", "normal"), (ALICE, "", "normal"),
        (CAROL, None, "low"), (CAROL, "high", "low"),
    ],
)  # fmt: skip
def test_a_client_may_ask_for_a_lower_class_than_its_tenants_and_for_no_higher(
    bed: Bed, tenant: str, asked: str | None, given: str
) -> None:
    headers = {} if asked is None else {"x-holdfast-priority": asked}
    assert ask(bed, bearer(tenant) | headers).json()["headers"]["x-holdfast-priority"] == given


def test_no_key_is_in_a_log_or_in_a_file_that_others_may_read(bed: Bed) -> None:
    assert ask(bed, bearer(ALICE)).status_code == 200
    for found in bed.gateways.values():
        assert "key-of-" not in found.server.log()
        holding = [path for path in found.directory.iterdir() if path.is_file() and "key-of-" in path.read_text()]
        assert [path.name for path in holding] == ["ecds-keys.yaml"]
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in holding)
    wait_for(lambda: '"tenant":"alice"' in bed.gateways["edge"].server.log(), "the access log names the tenant")


def test_keys_are_rotated_without_closing_a_connection(make_bed: Callable[..., Bed]) -> None:
    fresh = make_bed(regions={"us": 1}, tenants=TENANTS, timing={"auth": Auth.REQUIRED})
    fresh.start(edge=False)
    place = urlsplit(fresh.gateways["us"].url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=20)
    connection.connect()
    connection.auto_open = 0
    """From now on a closed connection is an error, instead of opened again."""

    def status(key: str) -> int:
        connection.request("GET", "/v1/models", headers=bearer(key))
        answer = connection.getresponse()
        answer.read()
        return answer.status

    assert (status(ALICE), status(NEW)) == (200, 401)
    fresh.set_tenants(Tenant(name="alice", keys=(ALICE, NEW)))
    wait_for(lambda: status(NEW) == 200, "the new key is valid")
    assert status(ALICE) == 200, "and so is the old one"
    # An answer is under way while the old key goes.
    body = json.dumps({"model": "llama", "seconds": 2})
    connection.request("POST", "/v1/chat/completions", body, {**bearer(ALICE), "content-type": "application/json"})
    second = Tenant(name="alice", keys=(NEW,))
    wait_for(lambda: fresh.gateways["us"].stat(r"^cluster\.local/default/chat\.upstream_rq_active$") == 1, "it runs")
    fresh.set_tenants(second)
    wait_for(lambda: ask(fresh, bearer(ALICE), gateway="us").status_code == 401, "the old key is void")
    answer = connection.getresponse()
    assert (answer.status, bool(answer.read())) == (200, True)
    assert (status(ALICE), status(NEW)) == (401, 200)


def test_with_no_tenant_at_all_the_door_is_closed(make_bed: Callable[..., Bed]) -> None:
    fresh = make_bed(regions={"us": 1}, timing={"auth": Auth.REQUIRED})
    fresh.start(edge=False)
    assert ask(fresh, bearer(ALICE), gateway="us").status_code == 401


def test_a_stream_passes_the_relay_as_its_tenants(make_bed: Callable[..., Bed]) -> None:
    fresh = make_bed(regions={"us": 1}, tenants=TENANTS, timing={"auth": Auth.REQUIRED}, relay_flags=())
    fresh.start(edge=False)
    body = LLAMA | {"stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    answer = ask(fresh, bearer(CAROL), body, "us")
    assert fresh.gateways["us"].stat(r"^http\.outbound\.downstream_rq_total$") >= 1, "it went through the relay"
    headers = answer.json()["headers"]
    assert (headers["x-holdfast-tenant"], headers["x-holdfast-priority"]) == ("carol", "low")
    assert "authorization" not in headers
    assert ask(fresh, bearer(BOB), body, "us").status_code == 403


def test_there_may_be_many_tenants(make_bed: Callable[..., Bed]) -> None:
    words = ["".join(letters) for letters in itertools.product("abcdefgh", repeat=3)]
    many = [
        Tenant(name=f"{word}-{word[::-1]}.team", keys=(f"key-of-tenant-{word}",), settings=Settings(models=(model,)))
        for word, model in zip(words, itertools.cycle(["llama", "other"]))
    ]
    fresh = make_bed(regions={"us": 1}, tenants=tuple(many), timing={"auth": Auth.REQUIRED})
    fresh.start(edge=False)
    for tenant, status in ((many[0], 200), (many[1], 403), (many[-2], 200), (many[-1], 403)):
        assert ask(fresh, bearer(tenant.keys[0]), gateway="us").status_code == status
    assert fresh.gateways["us"].stat("update_rejected") == 0
