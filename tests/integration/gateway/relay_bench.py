"""A relay as a process, between upstreams that a test scripts and the test as its client."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import httpx
from tests.integration.gateway.bed import status_of, wait_for
from tests.integration.gateway.outbound_stand_in import DONE, Outbound, chunk, stream
from tests.integration.gateway.processes import RELAY_PORT, Server, relay

from holdfast_gateway.render.streams import STREAMS

SERVICE = "default/chat"
DEADLINE = 60.0

BEGIN = chunk("a", [1], prompt=[7]) + chunk("b", [2])
REST = stream(chunk("c", [3], prompt=[7, 1, 2]), chunk("d", [4], "stop"), DONE, region="eu")
"""What an engine streams before it is lost, and what another one adds."""


class Bench:
    """A relay between scripted upstreams and the test."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.1"
        self.folder = folder
        self.outbound = Outbound()
        self.relay: Server
        self.describe()

    def describe(self, regions: tuple[str, ...] = ("us", "eu"), resumes: int = 3, progress: float = 30) -> None:
        """What the agent tells."""
        service = {"regions": list(regions), "maxResumes": resumes, "progressTimeoutSeconds": progress}
        unfinished = self.folder / "new"
        unfinished.write_text(json.dumps({"services": {SERVICE: service}}))
        unfinished.replace(self.folder / STREAMS)

    async def start(self, *flags: str, **scripts: Any) -> Bench:
        self.outbound.scripts = {
            region: script if isinstance(script, list) else [script] for region, script in scripts.items()
        }
        await self.outbound.start(self.address, 9905)
        self.relay = relay(self.folder, self.address, *flags)
        self.relay.start()
        await asyncio.to_thread(wait_for, lambda: status_of(f"{self.url}/ready/x") == 200, "the relay is up")
        return self

    @property
    def url(self) -> str:
        return f"http://{self.address}:{RELAY_PORT}"

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, http1=False, http2=True, timeout=DEADLINE)

    async def ask(self, path: str = "/v1/completions", **fields: Any) -> httpx.Response:
        body = {"model": "llama", "stream": True, "prompt": "x", "max_tokens": 9, **fields}
        async with self.client() as client:
            return await client.post(path, json=body, headers={"x-holdfast-service": SERVICE, "x-request-id": "r"})

    def metric(self, name: str) -> float:
        text = httpx.get(f"http://{self.address}:9906/metrics").text
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    async def eventually(self, name: str, value: float) -> None:
        """Until a metric has this value."""
        await asyncio.to_thread(wait_for, lambda: self.metric(name) == value, f"{name} is {value}")


def told(response: httpx.Response) -> tuple[str, str | None, str]:
    """Text, finish reason, and the last event's data."""
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    choices = [choice for each in chunks for choice in each.get("choices", [])]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    return "".join(choice["text"] for choice in choices), reasons[0] if reasons else None, events[-1]
