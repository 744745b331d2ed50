"""The agent follows the Secrets of tenants; what is broken or cannot be read neither opens nor closes the door."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.gateway.agents import agent_of, eventually
from tests.integration.gateway.api_stand_in import ApiStandIn
from tests.unit.gateway.test_tenants import secret

from holdfast_gateway.options import Auth, Role

pytestmark = pytest.mark.integration

ONE, TWO = "key-number-000001", "key-number-000002"


def keys(directory: Path) -> dict[str, str] | None:
    """API key → tenant, as Envoy is told; None while it is told nothing."""
    path = directory / "ecds-keys.yaml"
    if not path.exists():
        return None
    (found,) = yaml.safe_load(path.read_text())["resources"]
    return {each["key"]: each["client"] for each in found["typed_config"]["credentials"]}


async def test_tenants_are_followed_and_a_broken_one_keeps_its_last_good_version_also_after_a_restart(
    tmp_path: Path, servers: list[ApiStandIn], caplog: pytest.LogCaptureFixture
) -> None:
    server = servers[0]
    await server.put("Secret", secret("acme", api_key=ONE))
    async with agent_of(tmp_path, Role.REGIONAL, server, auth=Auth.REQUIRED) as agent:
        await eventually(lambda: keys(tmp_path) == {ONE: "acme"}, "the first list is applied")
        await server.put("Secret", secret("acme", api_key=ONE, api_key_next=TWO))
        await eventually(lambda: keys(tmp_path) == {ONE: "acme", TWO: "acme"}, "a rotation begins")
        await server.put("Secret", secret("acme", api_key=ONE, api_key_next="broken"))
        await eventually(lambda: bool(agent.problems), "a broken Secret is reported")
    async with agent_of(tmp_path, Role.REGIONAL, server, auth=Auth.REQUIRED) as agent:
        await eventually(lambda: bool(agent.problems), "the restarted agent sees it as well")
        assert keys(tmp_path) == {ONE: "acme", TWO: "acme"}
        await server.put("Secret", secret("acme", api_key=TWO))
        await eventually(lambda: keys(tmp_path) == {TWO: "acme"}, "the rotation ends")
        assert agent.problems == ()
        await server.delete("Secret", "holdfast-system/acme")
        await eventually(lambda: keys(tmp_path) == {}, "a tenant that is gone has no key")
    assert "api-key-next" in caplog.text
    assert not [key for key in (ONE, TWO) if key in caplog.text]


async def test_files_with_keys_are_their_owners_alone(tmp_path: Path, servers: list[ApiStandIn]) -> None:
    await servers[0].put("Secret", secret("acme", api_key=ONE))
    async with agent_of(tmp_path, Role.REGIONAL, servers[0], auth=Auth.REQUIRED):
        await eventually(lambda: (tmp_path / "last-good-secrets.json").exists(), "it has remembered")
    assert modes_of_holders(tmp_path) == {"ecds-keys.yaml": 0o600, "last-good-secrets.json": 0o600}


def modes_of_holders(directory: Path) -> dict[str, int]:
    """The modes of the files that hold a key."""
    holding = [path for path in directory.iterdir() if ONE in path.read_text()]
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in holding}


async def test_while_secrets_cannot_be_read_the_door_stays_as_it_is(tmp_path: Path, servers: list[ApiStandIn]) -> None:
    server = servers[0]
    await server.set_broken("Secret")
    async with agent_of(tmp_path, Role.REGIONAL, server, auth=Auth.REQUIRED) as agent:
        await eventually(lambda: agent.sources[0].routes.complete, "routes are known")
        assert keys(tmp_path) is None
        assert yaml.safe_load((tmp_path / "listeners.json").read_text()) == {"resources": []}
        await server.put("Secret", secret("acme", api_key=ONE))
        await server.set_broken()
        await eventually(lambda: keys(tmp_path) == {ONE: "acme"}, "the tenant is known")


async def test_an_edge_knows_the_tenants_of_all_its_regions(tmp_path: Path, servers: list[ApiStandIn]) -> None:
    await servers[0].put("Secret", secret("acme", api_key=ONE))
    await servers[1].put("Secret", secret("acme", api_key=TWO))
    await servers[1].put("Secret", secret("other", api_key=TWO + "-other"))
    async with agent_of(tmp_path, Role.EDGE, *servers, auth=Auth.REQUIRED):
        await eventually(lambda: keys(tmp_path) == {ONE: "acme", TWO + "-other": "other"}, "both are read")


async def test_without_authentication_no_secret_is_read(tmp_path: Path, servers: list[ApiStandIn]) -> None:
    await servers[0].set_broken("Secret")
    async with agent_of(tmp_path, Role.REGIONAL, servers[0]) as agent:
        await eventually(lambda: agent.writes > 0, "files are written")
        assert agent.sources[0].tenants is None
    assert keys(tmp_path) is None


async def test_issuers_of_tokens_are_followed_and_a_broken_one_keeps_its_last_good_version(
    tmp_path: Path, servers: list[ApiStandIn]
) -> None:
    server = servers[0]
    keys_of = {"jwks.json": json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AQAB"}]})}
    await server.put("Secret", issuer({"issuer": "one", "audiences": "a", **keys_of}))
    async with agent_of(tmp_path, Role.REGIONAL, server, auth=Auth.REQUIRED):
        await eventually(lambda: issuers(tmp_path) == ["one"], "the first list is applied")
        await server.put("Secret", issuer({"issuer": "two", "audiences": "a", **keys_of}))
        await eventually(lambda: issuers(tmp_path) == ["two"], "a change is applied")
        await server.put("Secret", issuer({"issuer": "three"}))
    async with agent_of(tmp_path, Role.REGIONAL, server, auth=Auth.REQUIRED) as agent:
        await eventually(lambda: bool(agent.problems), "a broken Secret is reported")
        assert issuers(tmp_path) == ["two"]


def issuer(data: dict[str, str]) -> dict[str, Any]:
    """A Secret that tells of an issuer."""
    made = secret("unused", "idp")
    made["metadata"]["labels"] = {"serving.holdfast.dev/jwt-issuer": "idp"}
    made["data"] = {entry: base64.b64encode(text.encode()).decode() for entry, text in data.items()}
    return made


def issuers(directory: Path) -> list[str]:
    """Issuers as Envoy is told."""
    path = directory / "ecds-tokens.yaml"
    if not path.exists():
        return []
    (found,) = yaml.safe_load(path.read_text())["resources"]
    return [each["issuer"] for each in found["typed_config"]["providers"].values()]
