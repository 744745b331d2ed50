"""`holdfast-gateway run`: a whole gateway in one process tree, for machines without Kubernetes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest
import yaml
from tests.integration.gateway.api_stand_in import ApiStandIn
from tests.integration.gateway.bed import free_port, status_of, wait_for
from tests.integration.gateway.processes import Server
from tests.integration.gateway.records import Kept
from tests.integration.gateway.test_agent import config_map, route

pytestmark = pytest.mark.integration


def relays(parent: int) -> list[int]:
    """Process ids of the relays that a process has started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if b"\0relay\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_an_edge_outside_kubernetes_runs_what_stands_beside_envoy_and_starts_it_again(tmp_path: Path) -> None:
    api = ApiStandIn()
    await api.start()
    await api.put("ConfigMap", config_map(route()))
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump({
        "current-context": "it", "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {"server": api.url}}], "users": [{"name": "it", "user": {}}],
    }))  # fmt: skip
    listen = f"127.{random.randint(1, 250)}.252.1"
    command = [sys.executable, "-m", "holdfast_gateway", "run", "--role", "edge", "--listen", listen]
    command += ["--dir", str(tmp_path / "envoy"), "--kubeconfig", str(kubeconfig), "--admin-port", str(free_port())]
    command += ["--relay-port", "9904", "--settle", "0", "--drain", "5", "--concurrency", "1"]
    command += ["--auth", "Required", "--limits", f"{listen}:9907", "--limits-store", "memory"]
    kept = Kept(tmp_path / "kept")
    command += ["--ledger", str(tmp_path / "spool"), "--sink", kept.sink]
    edge = Server(command, tmp_path / "edge.log")
    edge.start()
    try:
        await asyncio.to_thread(wait_for, lambda: status_of(f"http://{listen}:9904/ready") == 200, "the relay is up")
        await asyncio.to_thread(wait_for, lambda: status_of(f"http://{listen}:8080/ready") == 200, "Envoy is up")
        counting = f"http://{listen}:9908/healthz"
        await asyncio.to_thread(wait_for, lambda: status_of(counting) == 200, "the limiter is up")
        (first,) = relays(edge.pid)
        os.kill(first, signal.SIGKILL)
        await asyncio.to_thread(wait_for, lambda: relays(edge.pid) not in ([], [first]), "another relay runs")
        await asyncio.to_thread(wait_for, lambda: status_of(f"http://{listen}:9904/ready") == 200, "and answers")
        assert status_of(f"http://{listen}:8080/v1/models") == 401
        edge.terminate()
        assert await asyncio.to_thread(edge.wait, 60) == 0
        assert status_of(f"http://{listen}:9904/ready") == 0
        assert [(record["outcome"], record["path"]) for record in kept.all()] == [("refused", "/v1/models")]
    finally:
        edge.kill()
        await api.stop()
