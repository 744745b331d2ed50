"""Who waits and who leaves: queueing, first bytes, and generations that stop with their clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from holdfast_engine.app import PROBE_HEADER

pytestmark = pytest.mark.integration
Engine = Any  # tests/integration/engine/conftest.py: EngineProcess
Post = Callable[..., Any]
LONG = 4000
both_protocols = pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])


@both_protocols
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_generation_stops_when_its_client_leaves(
    paced_engine: Engine, post_raw: Post, http2: bool, stream: bool
) -> None:
    before = paced_engine.metric("vllm:generation_tokens_total")
    request = post_raw(paced_engine, http2, max_tokens=LONG, stream=stream)
    paced_engine.wait_load(running=1)
    if stream:
        request.read_until(b"data: ")
    request.leave()
    paced_engine.wait_load(running=0)
    assert paced_engine.metric("vllm:generation_tokens_total") < before + LONG
    assert paced_engine.metric("vllm:request_success_total", finished_reason="abort") > 0


@both_protocols
def test_a_waiting_request_sends_no_byte_and_never_runs_when_its_client_leaves(
    paced_engine: Engine, post_raw: Post, http2: bool
) -> None:
    running = [post_raw(paced_engine, max_tokens=LONG) for _ in range(2)]
    paced_engine.wait_load(running=2)
    waiting = post_raw(paced_engine, http2, max_tokens=LONG, stream=True)
    paced_engine.wait_load(running=2, waiting=1)
    for _ in range(5):
        assert waiting.read(0.1) == b""
    waiting.leave()
    paced_engine.wait_load(running=2, waiting=0)
    for request in running:
        request.leave()


@both_protocols
def test_a_waiting_stream_begins_when_a_place_is_free(paced_engine: Engine, post_raw: Post, http2: bool) -> None:
    running = [post_raw(paced_engine, max_tokens=LONG) for _ in range(2)]
    paced_engine.wait_load(running=2)
    waiting = post_raw(paced_engine, http2, max_tokens=3, stream=True)
    paced_engine.wait_load(running=2, waiting=1)
    running[0].leave()
    waiting.read_until(b"data: [DONE]")
    running[1].leave()


def test_probes_answer_while_the_queue_is_full(paced_engine: Engine, post_raw: Post) -> None:
    requests = [post_raw(paced_engine, max_tokens=LONG) for _ in range(200)]
    paced_engine.wait_load(running=2, waiting=198)
    assert paced_engine.status("/health") == 200
    assert paced_engine.status("/livez") == 200
    finished = paced_engine.metric("vllm:request_success_total", finished_reason="length")
    probe = {"model": "tiny", "prompt": "ping", "max_tokens": 1}
    answer = paced_engine.client.post("/v1/completions", json=probe, headers={PROBE_HEADER: "1"})
    assert answer.json()["usage"]["completion_tokens"] == 1
    paced_engine.wait_load(running=2, waiting=198)
    assert paced_engine.metric("vllm:request_success_total", finished_reason="length") == finished
    for request in requests:
        request.leave()
