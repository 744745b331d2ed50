"""What an engine tells of a request in its span: over HTTP and KServe's gRPC, answered, refused, late, given up."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tests.integration.engine.conftest import LONG
from tests.integration.gateway.collector import Collector, Span

pytestmark = pytest.mark.integration
Launch = Callable[..., Any]
PARENT = "1234567890abcdef"


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def engine(launch: Launch, collector: Collector) -> Any:
    """One place, slow, and tracing nothing by itself."""
    options = ("--max-num-seqs", "1", "--step-interval", "0.03", "--otlp-endpoint", collector.url)
    return launch(*options, "--trace-sampling", "0").wait_ready()


def in_trace(trace: str, **headers: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{PARENT}-01", **headers}


def span_of(collector: Collector, trace: str) -> Span:
    (span,) = collector.wait(trace, holdfast_engine=1)
    assert span.parent_id == PARENT
    return span


def test_an_answer_tells_its_tokens_and_times(engine: Any, collector: Collector) -> None:
    trace = secrets.token_hex(16)
    with engine.connect() as client:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "ignore_eos": True}
        headers = in_trace(trace, **{"x-request-id": "r1", "x-holdfast-priority": "high", "x-holdfast-tenant": "acme"})
        assert client.post("/v1/chat/completions", json=body, headers=headers).status_code == 200
    span = span_of(collector, trace)
    assert (span.sender, span.kind, span.name, span.failed) == ("holdfast-engine", "SERVER", "chat tiny", False)
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "tiny",
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.response.finish_reasons": ["length"],
        "http.response.status_code": 200,
        "holdfast.request_id": "r1",
        "holdfast.tenant": "acme",
        "holdfast.priority": "high",
        "holdfast.cancelled": False,
    }
    assert said.items() <= span.attributes.items()
    assert span.attributes["gen_ai.usage.input_tokens"] > 0
    times = [span.attributes[f"gen_ai.latency.{name}"] for name in ("time_in_queue", "time_to_first_token", "e2e")]
    assert times == sorted(times)


def test_a_request_over_grpc_is_in_the_trace_of_its_metadata(engine: Any, collector: Collector) -> None:
    trace = secrets.token_hex(16)
    client = triton_grpc.InferenceServerClient(f"127.0.0.1:{engine.grpc_port}")
    text = triton_grpc.InferInput("text_input", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"Hi"], dtype=np.object_))
    sampling = triton_grpc.InferInput("sampling_parameters", [1], "BYTES")
    sampling.set_data_from_numpy(
        np.array([json.dumps({"max_tokens": 4, "ignore_eos": True}).encode()], dtype=np.object_)
    )
    client.infer("tiny", [text, sampling], headers=in_trace(trace))
    client.close()
    span = span_of(collector, trace)
    assert span.attributes["rpc.system"] == "grpc"
    assert span.attributes["gen_ai.usage.output_tokens"] == 4


def test_what_was_refused_came_late_or_was_given_up_says_so(engine: Any, collector: Collector) -> None:
    refused, late, left = (secrets.token_hex(16) for _ in range(3))
    body = {"model": "tiny", "prompt": "Hi"}
    with engine.connect() as client:
        assert client.post("/v1/completions", json={**body, "n": 2}, headers=in_trace(refused)).status_code == 400
        long = {**body, "stream": True, "max_tokens": LONG, "ignore_eos": True}
        with client.stream("POST", "/v1/completions", json=long, headers=in_trace(left)) as answer:
            reading = answer.iter_raw()  # kept: httpx leaves when it is dropped
            next(reading)
            limit = in_trace(late, **{"x-holdfast-timeout": "0.1"})
            asked = httpx.post(f"http://127.0.0.1:{engine.port}/v1/completions", json=body, headers=limit, timeout=30)
            assert asked.status_code == 408
    assert span_of(collector, refused).attributes["http.response.status_code"] == 400
    assert span_of(collector, late).attributes["error.type"] == "deadline_exceeded"
    gone = span_of(collector, left)
    assert gone.attributes["holdfast.cancelled"] is True
    assert gone.attributes["gen_ai.usage.output_tokens"] > 0
    assert not any(span.failed for span in collector.spans()), "none of it is the engine's fault"


def test_an_observers_request_is_in_no_trace(engine: Any, collector: Collector) -> None:
    watched, asked = secrets.token_hex(16), secrets.token_hex(16)
    body = {"model": "tiny", "prompt": "Hi", "max_tokens": 1}
    with engine.connect() as client:
        client.post("/v1/completions", json=body, headers=in_trace(watched, **{"x-holdfast-probe": "1"}))
        client.post("/v1/completions", json=body, headers=in_trace(asked))
    span_of(collector, asked)
    assert collector.trace(watched) == []
