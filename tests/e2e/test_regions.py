"""The whole of Holdfast on three real regions: what the clients see while things die."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
from tests.e2e.world import World, processes_of, wait_for

from holdfast_chaos.measure import Phase
from holdfast_chaos.records import StreamOutcome

pytestmark = pytest.mark.e2e


def test_every_region_answers_with_generated_tokens(healthy: World) -> None:
    texts = set()
    for region in healthy.bed.regions:
        status, served_by, answer = healthy.ask(f"http://{region.address}:8080", max_tokens=12, temperature=0)
        assert status == 200
        assert served_by == region.name
        assert answer["usage"]["completion_tokens"] == 12
        texts.add(answer["choices"][0]["text"])
    assert len(texts) == 1, "the same model and prompt, decoded greedily, gave different texts"


def test_chat_streams_through_the_edge(healthy: World) -> None:
    body = {
        "model": healthy.service.model,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 5,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    request = urllib.request.Request(
        f"{healthy.edge.url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        lines = [line.decode().strip() for line in answer if line.strip()]

    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["usage"]["completion_tokens"] == 5


def test_an_unknown_model_is_told_which_there_are(healthy: World) -> None:
    status, _, answer = healthy.ask(healthy.edge.url, model="nothing")

    assert status == 404
    assert answer["error"]["code"] == "model_not_found"
    assert healthy.service.model in answer["error"]["message"]


@pytest.mark.parametrize("kind", ["kill", "cut"])
def test_a_region_that_fails_under_load_costs_no_request(healthy: World, kind: str) -> None:
    seen, fault = healthy.under_load(kind, healthy.bed)

    assert seen.requests_failed == 0, seen.failures
    assert seen.requests == 50 * 28
    assert seen.rto == 0.0
    assert seen.regions[fault.region][Phase.BEFORE] > 0
    assert seen.streams[StreamOutcome.FAILED] == 0
    assert seen.streams[StreamOutcome.COMPLETED] > 0


class EngineKill:
    """The fault that ends a region's engines at once, as an out-of-memory kill would."""

    def __init__(self, world: World) -> None:
        self._world = world

    def fault(self, _kind: str, region: str) -> None:
        for pod in self._world.engine_pods(region):
            for process in processes_of(pod):
                process.kill()

    def heal(self, region: str) -> None:
        wait_for("the engine's return", lambda: any(each.ready for each in self._containers(region)))

    def _containers(self, region: str) -> list[Any]:
        return [status for pod in self._world.engine_pods(region) for status in pod.status.container_statuses or ()]


def test_engines_that_are_killed_under_load_cost_no_request(healthy: World) -> None:
    seen, fault = healthy.under_load("kill the engines of", EngineKill(healthy), heal_at=12, seconds=20)

    assert seen.requests_failed == 0, seen.failures
    assert seen.regions[fault.region][Phase.BEFORE] > 0
