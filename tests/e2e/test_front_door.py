"""The whole front door in a real cluster, switched on by `helm upgrade` while requests run."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python
import httpx
import openai
import pytest
from kubernetes import client
from tests.e2e.world import Load, World, wait_for
from tests.integration.gateway import certificates

from holdfast_testbed.images.project import find_project
from holdfast_testbed.install import NAMESPACE, RELEASE, wait_until_running
from holdfast_testbed.testbed import Region

pytestmark = pytest.mark.e2e

EDGE_PORT = 8088
TENANT_LABEL = "serving.holdfast.dev/tenant"
TENANTS = {"acme": "", "small": "requestsPerMinute: 3\nburst: 1000\n"}
"""Tenant → its settings. The small one's limit is one that only the limiter counts."""
USAGE = "/var/lib/holdfast-usage"
SWITCHED_ON: dict[str, Any] = {
    "gateway": {
        "auth": {"mode": "Required"},
        "tls": {"clientSecret": "front"},
        "limits": {"enabled": True},
        "ledger": {"enabled": True, "sink": f"file://{USAGE}", "volume": {"emptyDir": {}}},
    },
    "edge": {"enabled": True, "replicas": 1, "port": EDGE_PORT, "exposure": {"type": "HostPort"}},
    "logs": {"format": "json"},
}


@dataclass
class Door:
    """A region whose gateways have everything switched on."""

    world: World
    region: Region
    trust: ssl.SSLContext
    upgrade: Load
    """What clients of the edge outside saw meanwhile."""

    def client(self, tenant: str = "", port: int = 8080) -> openai.OpenAI:
        """OpenAI's own client, with a tenant's key or a wrong one, that asks once."""
        return openai.OpenAI(
            base_url=f"https://{self.region.address}:{port}/v1",
            api_key=key_of(tenant) if tenant else "sk-of-nobody-at-all",
            http_client=openai.DefaultHttpxClient(verify=self.trust),
            max_retries=0,
        )

    def ask(self, asker: openai.OpenAI) -> Any:
        """One answer of three tokens, with its headers."""
        return asker.completions.with_raw_response.create(
            model=self.world.service.model, prompt="Hello", max_tokens=3, extra_body={"ignore_eos": True}
        )

    def inside(self, container: str, *command: str) -> str:
        """What a command prints in a container of the gateway."""
        where = ["-n", NAMESPACE, "exec", f"deploy/{RELEASE}-gateway", "-c", container, "--"]
        return self.world.kubectl(self.region.name, *where, *command)


@pytest.fixture(scope="module")
def door(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Switched on under load; rolled back at the end."""
    world.wait_all_serve()
    region = world.bed.regions[1]
    authority = tmp_path_factory.mktemp("front")
    certificates.authority(authority)
    certificates.certificate(authority, f"IP:{region.address}")
    with world.api(region.name) as api:
        for secret in secrets(authority):
            client.CoreV1Api(api).create_namespaced_secret(NAMESPACE, secret)
    with helm_python.Config(kubeconfig_path=region.kubeconfig, namespace=NAMESPACE) as helm:
        with world.load() as load:
            chart = find_project(Path(__file__)) / "charts" / "holdfast"
            helm.upgrade(str(chart), RELEASE, SWITCHED_ON, namespace=NAMESPACE, reuse_values=True)
            wait_until_running(region)
        try:
            trust = ssl.create_default_context(cafile=str(authority / "ca.crt"))
            yield Door(world, region, trust, load)
        finally:
            helm.rollback(RELEASE)
            wait_until_running(region)
            with world.api(region.name) as api:
                for secret in secrets(authority):
                    client.CoreV1Api(api).delete_namespaced_secret(secret["metadata"]["name"], NAMESPACE)


def test_an_upgrade_that_replaces_a_regions_gateway_under_load_costs_no_request(door: Door) -> None:
    door.upgrade.assert_nothing_failed()


@pytest.mark.parametrize("port", [8080, EDGE_PORT])
def test_the_gateway_and_the_charts_edge_answer_a_tenant_over_tls_and_nobody_else(door: Door, port: int) -> None:
    assert wait_for("an answer", lambda: answered(door, port)).usage.completion_tokens == 3

    with pytest.raises(openai.AuthenticationError) as refused:
        door.ask(door.client(port=port))
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{door.region.address}:{port}/v1/models")


def test_nobody_without_a_certificate_reaches_a_peer_port_and_observers_reach_them_all(world: World) -> None:
    for region in world.bed.regions:
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{region.address}:8081/ready")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"https://{region.address}:8081/ready", verify=False)

    def seen() -> bool:
        return all(world.verdict(observer, of) == "Healthy" for observer in world.names for of in world.names)

    wait_for("every observer sees every region well", seen)


def test_a_stream_passes_the_relay_of_the_regions_gateway(door: Door) -> None:
    chunks = list(
        door.client("acme").completions.create(
            model=door.world.service.model, prompt="Hello", max_tokens=7, stream=True, extra_body={"ignore_eos": True}
        )
    )

    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert metric(door.inside("relay", *scrape(9906)), "holdfast_relay_streams_total") >= 1


def test_a_tenants_limit_is_counted_by_the_limiter(door: Door) -> None:
    asker = door.client("small")

    for _ in range(3):
        assert door.ask(asker).headers["x-ratelimit-limit"].startswith("3")
    with pytest.raises(openai.RateLimitError) as refused:
        door.ask(asker)

    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert metric(door.inside("limits", *scrape(9908)), 'holdfast_limiter_decisions_total{outcome="requests"}') >= 1


def test_every_answer_is_in_the_ledger_with_its_tokens(door: Door) -> None:
    before = recorded(door)
    for _ in range(4):
        door.ask(door.client("acme"))

    def counted() -> bool:
        now = recorded(door)
        return now["requests"] - before["requests"] == 4 and now["tokens_out"] - before["tokens_out"] == 12

    wait_for("the records of four answers", counted)


def test_log_lines_are_json_and_hold_no_key(door: Door) -> None:
    logs = ("-n", NAMESPACE, "logs", f"deploy/{RELEASE}-gateway")
    of_agent = door.world.kubectl(door.region.name, *logs, "-c", "agent").splitlines()
    of_all = door.world.kubectl(door.region.name, *logs, "--all-containers")

    assert of_agent
    assert all(json.loads(line)["level"] for line in of_agent)
    assert not any(key_of(tenant) in of_all for tenant in TENANTS)


def answered(door: Door, port: int) -> Any:
    """The answer to a tenant; None as long as the gateway does not know it or its engines."""
    try:
        return door.ask(door.client("acme", port)).parse()
    except (openai.APIConnectionError, openai.APIStatusError):
        return None


def recorded(door: Door) -> dict[str, int]:
    """What the ledger has of one tenant, as `holdfast-gateway usage` tells it."""
    usage = ("python3", "-m", "holdfast_gateway", "usage", USAGE, "--by", "tenant", "-o", "json")
    printed = json.loads(door.inside("ledger", *usage))
    [found] = [each for each in printed if each["tenant"] == "acme"] or [{"requests": 0, "tokens_out": 0}]
    return {name: int(found[name]) for name in ("requests", "tokens_out")}


def scrape(port: int) -> tuple[str, ...]:
    """The command that prints the metrics of a container."""
    return (
        "python3",
        "-c",
        f"from urllib.request import urlopen; print(urlopen('http://127.0.0.1:{port}/metrics').read().decode())",
    )


def metric(text: str, name: str) -> float:
    """The sum of the series whose name and labels begin so."""
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def key_of(tenant: str) -> str:
    return f"sk-of-{tenant}-0123456789"


def secrets(authority: Path) -> Iterator[dict[str, Any]]:
    """The certificate, and the tenants, as a user would make them."""
    pair = {name: (authority / name).read_text() for name in ("tls.crt", "tls.key")}
    yield {"metadata": {"name": "front"}, "type": "kubernetes.io/tls", "stringData": pair}
    for tenant, settings in TENANTS.items():
        data = {"api-key": key_of(tenant), **({"tenant.yaml": settings} if settings else {})}
        yield {"metadata": {"name": f"tenant-{tenant}", "labels": {TENANT_LABEL: tenant}}, "stringData": data}
