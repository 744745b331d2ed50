"""Prompts, answers, keys and tokens are in no log line, access log or span, whatever becomes of a request, at the most
talkative levels that the documentation names."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.integration.gateway.api_stand_in import ApiStandIn
from tests.integration.gateway.bed import Bed, free_port, status_of, wait_for
from tests.integration.gateway.collector import Collector
from tests.integration.gateway.processes import Server, cpu_engine
from tests.integration.gateway.test_agent import config_map, route
from tests.integration.gateway.tokens import CLAIMS, Signer
from tests.unit.gateway.test_tenants import secret

from holdfast.api.route import TrafficMode
from holdfast_gateway.issuers import Issuer
from holdfast_gateway.options import Auth
from holdfast_gateway.tenants import Tenant

pytestmark = pytest.mark.integration

CANARY = "canary-in-a-coal-mine"
KEY, WRONG_KEY, QUERY_KEY = "sk-key-of-alice-0001", "sk-key-of-nobody-01", "sk-key-in-the-query"
SIGNER = Signer()
TOKEN = SIGNER.token(tenant="alice")
EXPIRED = SIGNER.token(-3600, tenant="alice")
PROMPT = {"model": "llama", "prompt": CANARY, "max_tokens": 20, "temperature": 0, "ignore_eos": True}
CHAT = {"model": "llama", "messages": [{"role": "user", "content": CANARY}], "max_tokens": 20, "temperature": 0}
REQUESTS: list[dict[str, Any]] = [
    PROMPT,
    CHAT,
    {**PROMPT, "stream": True},
    {**CHAT, "stream": True},
    {**PROMPT, "n": 2},
    {**PROMPT, "temperature": CANARY},
    {**PROMPT, "stop": [CANARY, ""]},
    {**PROMPT, "max_tokens": 10**9},
    {**PROMPT, "stream": True, "max_tokens": 10**9},
    {**PROMPT, "stream": True, "temperature": CANARY},
    {**PROMPT, "stream": True, "logprobs": 1},
    {**CHAT, "messages": [{"role": CANARY, "content": {CANARY: CANARY}}]},
    {**PROMPT, "prompt": [CANARY, CANARY]},
    {"model": "unknown", "prompt": CANARY},
    {"prompt": CANARY},
]
"""Good, refused by the engine, and refused by the gateway."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def bed(tmp_path: Path, collector: Collector, model: Path) -> Iterator[Bed]:
    """Two regions and an edge that log and trace all they can."""
    traced = ("--otlp-endpoint", collector.url, "--trace-sampling", "100")

    def engine(name: str, address: str, port: int, folder: Path) -> Server:
        return cpu_engine(name, address, port, folder, model, (*traced, "--log-format", "json"))

    made = Bed(
        tmp_path,
        regions={"us": 1, "eu": 1},
        make_engine=engine,
        mode=TrafficMode.ACTIVE_PASSIVE,
        tenants=(Tenant(name="alice", keys=(KEY,)),),
        issuers=(Issuer(secret="ns/one", issuer=CLAIMS["iss"], audiences=("holdfast",), jwks=SIGNER.jwks()),),
        timing={
            "auth": Auth.REQUIRED,
            "access_log": True,
            "otlp_endpoint": collector.url,
            "trace_sampling": 100.0,
        },
        relay_flags=traced,
        envoy_flags=("--log-level", "info"),
        env={"HOLDFAST_VERBOSE": "1", "HOLDFAST_LOG_FORMAT": "json"},
    )
    with made.running():
        yield made


def test_no_prompt_answer_or_credential_leaves_the_processes_but_by_the_answer(bed: Bed, collector: Collector) -> None:
    url = f"{bed.gateways['edge'].url}/v1/completions"
    answers = [ask(url, body, {"authorization": f"Bearer {KEY}"}) for body in REQUESTS]
    answers += [ask(url, PROMPT, headers) for headers in credentials()]
    answers.append(ask(url, PROMPT, {"x-api-key": KEY, "x-holdfast-timeout": "0.000001"}))
    answers.append(ask(url, PROMPT, {"x-api-key": KEY}, query=f"?api-key={QUERY_KEY}"))
    broken = httpx.post(url, content=f'{{"prompt": "{CANARY}', headers={"x-api-key": KEY}, timeout=60)
    assert {200, 400, 401, 404} <= {answer.status_code for answer in (*answers, broken)}
    generated = answers[0].json()["choices"][0]["text"]
    assert len(generated) > 10
    resumed = read_and_lose(bed, url)
    trace = secrets.token_hex(16)
    ask(url, PROMPT, {"x-api-key": KEY, "traceparent": f"00-{trace}-1234567890abcdef-01"})
    collector.wait(trace, holdfast_edge=2, holdfast_gateway=2, holdfast_engine=1)

    access_logs = [bed.gateways[name].server for name in ("edge", "us", "eu")]
    wait_for(lambda: all("/v1/completions" in each.log() for each in access_logs), "Envoy writes its access logs")
    wait_for(lambda: trace in access_logs[0].log(), "to the end")
    logs = {str(path): path.read_text() for path in bed.folder.rglob("*.log")}
    assert len(logs) == 8
    said = {**logs, "spans": collector.raw().decode("utf-8", "replace")}
    assert collector.spans()
    for what in (CANARY, KEY, WRONG_KEY, QUERY_KEY, TOKEN, EXPIRED, TOKEN.split(".")[2], generated, resumed):
        assert [name for name, text in said.items() if what in text] == [], what


def credentials() -> Iterator[dict[str, str]]:
    """Good ones and bad ones."""
    yield {"api-key": KEY}
    yield {"x-api-key": WRONG_KEY}
    yield {"authorization": f"Bearer {TOKEN}"}
    yield {"authorization": f"Bearer {EXPIRED}"}


def ask(url: str, body: dict[str, Any], headers: dict[str, str], query: str = "") -> httpx.Response:
    """One request, to the path that its body is made for."""
    url = url.replace("/completions", "/chat/completions") if "messages" in body else url
    return httpx.post(url + query, json=body, headers=headers, timeout=60)


def read_and_lose(bed: Bed, url: str) -> str:
    """A stream whose engine dies after some tokens, and goes on; a part of its text."""
    body = {**PROMPT, "stream": True, "max_tokens": 40}
    text, events = "", 0
    with httpx.stream("POST", url, json=body, headers={"x-api-key": KEY}, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                events += 1
                text += "".join(choice["text"] for choice in json.loads(line[6:])["choices"])
                if events == 10:
                    bed.engines["us-0"].kill()
            resumed = line.startswith(": resumed")
            assert not (resumed and events < 10)
    assert events >= 30
    return text


async def test_an_agent_that_logs_all_it_can_prints_no_key(tmp_path: Path) -> None:
    api = ApiStandIn()
    await api.start()
    await api.put("ConfigMap", config_map(route()))
    await api.put("Secret", secret("alice", api_key=KEY))
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump({
        "current-context": "it", "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {"server": api.url}}], "users": [{"name": "it", "user": {}}],
    }))  # fmt: skip
    listen = f"127.{secrets.randbelow(250) + 1}.253.1"
    command = [sys.executable, "-m", "holdfast_gateway", "--verbose", "run", "--role", "edge", "--listen", listen]
    command += ["--dir", str(tmp_path / "envoy"), "--kubeconfig", str(kubeconfig), "--admin-port", str(free_port())]
    command += ["--auth", "Required", "--settle", "0", "--drain", "5", "--concurrency", "1"]
    edge = Server(command, tmp_path / "edge.log")
    edge.start()
    try:
        keys = tmp_path / "envoy" / "ecds-keys.yaml"
        await asyncio.to_thread(wait_for, lambda: keys.exists() and KEY in keys.read_text(), "the key is known")
        await asyncio.to_thread(wait_for, lambda: status_of(f"http://{listen}:8080/ready") == 200, "Envoy is up")
        assert "DEBUG" in edge.log()
        assert KEY not in edge.log()
        assert base64.b64encode(KEY.encode()).decode() not in edge.log()
    finally:
        edge.kill()
        await api.stop()
