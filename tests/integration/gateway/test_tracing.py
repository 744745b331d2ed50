"""Requests as traces: real Envoys, and a collector that reads what they export."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.gateway.bed import Bed, wait_for
from tests.integration.gateway.collector import Collector, Span, tree
from tests.integration.gateway.conftest import MakeBed
from tests.integration.gateway.processes import Server, cpu_engine
from tests.integration.gateway.streaming import COMPLETION, metric

from holdfast.api.route import TrafficMode

pytestmark = pytest.mark.integration

PARENT = "1234567890abcdef"


def ask(url: str, trace: str = "", flags: str = "01", **fields: Any) -> httpx.Response:
    """A request; `trace`: the id of the trace that the client has begun."""
    headers = {"traceparent": f"00-{trace}-{PARENT}-{flags}", "tracestate": "vendor=1"} if trace else {}
    body = {"model": "llama", "prompt": "x", **fields}
    return httpx.post(f"{url}/v1/completions", json=body, headers={"x-request-id": "mine", **headers}, timeout=30)


def traced(answer: httpx.Response) -> str:
    """The `traceparent` that the engine got."""
    return str(answer.json()["headers"]["traceparent"])


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def bed(make_bed: MakeBed, collector: Collector) -> Bed:
    """Two regions and an edge that trace nothing by themselves."""
    made = make_bed(
        regions={"us": 1, "eu": 1},
        timing={"otlp_endpoint": collector.url, "trace_sampling": 0.0, "resource_attributes": "holdfast.fleet=test"},
    )
    made.start()
    return made


def test_a_clients_trace_goes_on_through_edge_and_gateway_to_the_engine(bed: Bed, collector: Collector) -> None:
    trace = secrets.token_hex(16)

    answer = ask(bed.gateways["edge"].url, trace)
    spans = collector.wait(trace, holdfast_edge=2, holdfast_gateway=2)

    print(*tree(spans), sep="\n")
    assert [len(line) - len(line.lstrip()) for line in tree(spans)] == [0, 2, 4, 6], "each below the one before"
    assert [(span.sender, span.kind, span.name) for span in spans] == [
        ("holdfast-edge", "SERVER", "POST /v1/completions"),
        ("holdfast-edge", "CLIENT", "POST service/default/chat"),
        ("holdfast-gateway", "SERVER", "POST /v1/completions"),
        ("holdfast-gateway", "CLIENT", "POST local/default/chat"),
    ]
    assert spans[0].parent_id == PARENT
    assert traced(answer) == f"00-{trace}-{spans[-1].span_id}-01"
    assert answer.json()["headers"]["tracestate"] == "vendor=1"
    assert answer.json()["headers"]["x-request-id"] == "mine"
    assert_described(spans[0], answer.headers["x-holdfast-region"])


def assert_described(span: Span, region: str) -> None:
    """What a client port's span says."""
    said = {
        "http.request.method": "POST",
        "http.response.status_code": "200",
        "url.path": "/v1/completions",
        "gen_ai.request.model": "llama",
        "holdfast.port": "client",
        "holdfast.request_id": "mine",
        "holdfast.service": "default/chat",
        "holdfast.region": region,
        "holdfast.attempts": "1",
    }
    assert said.items() <= span.attributes.items()
    assert span.resource["holdfast.fleet"] == "test"


def test_a_trace_that_its_client_does_not_keep_is_not_exported(bed: Bed, collector: Collector) -> None:
    left_out, kept = secrets.token_hex(16), secrets.token_hex(16)
    assert traced(ask(bed.gateways["edge"].url, left_out, "00")).startswith(f"00-{left_out}-")
    assert traced(ask(bed.gateways["edge"].url)).endswith("-00"), "the share of traces that begin here is 0"
    ask(bed.gateways["edge"].url, kept)
    collector.wait(kept, holdfast_edge=2, holdfast_gateway=2)
    assert {span.trace_id for span in collector.spans()} == {kept}


def test_attempts_of_one_request_are_spans_beside_each_other(bed: Bed, collector: Collector) -> None:
    trace = secrets.token_hex(16)
    assert ask(bed.gateways["us"].url, trace, status=503).status_code == 503
    spans = collector.wait(trace, holdfast_gateway=8)
    client, *attempts = [span for span in spans if span.attributes["holdfast.port"] == "client"]
    assert client.attributes["holdfast.attempts"] == str(len(attempts)) == "3"
    assert {span.parent_id for span in attempts} == {client.span_id}


def test_a_share_of_requests_is_traced(make_bed: MakeBed, collector: Collector) -> None:
    bed = make_bed(regions={"us": 1}, timing={"otlp_endpoint": collector.url, "trace_sampling": 50.0})
    bed.start(edge=False)
    kept = sum(traced(ask(bed.gateways["us"].url)).endswith("-01") for _ in range(60))
    assert 5 < kept < 55


def test_without_a_collector_the_clients_trace_context_passes_untouched(still_bed: Bed) -> None:
    trace = secrets.token_hex(16)
    answer = ask(still_bed.gateways["edge"].url, trace)
    assert traced(answer) == f"00-{trace}-{PARENT}-01"
    assert answer.json()["headers"]["tracestate"] == "vendor=1"
    assert "traceparent" not in ask(still_bed.gateways["edge"].url).json()["headers"]


@pytest.mark.parametrize("fault", ["hangs", "refuses", "is-gone"])
def test_a_collector_that_does_not_work_costs_no_request(bed: Bed, collector: Collector, fault: str) -> None:
    gateway = bed.gateways["us"]
    if fault == "hangs":
        collector.hangs.set()
    elif fault == "refuses":
        collector.status = 503
    else:
        collector.close()
    for _ in range(300):
        assert ask(gateway.url, secrets.token_hex(16)).status_code == 200
    if fault != "is-gone":
        wait_for(lambda: collector.asked > 0, "it was asked")


def test_a_collector_whose_name_is_not_found_keeps_no_gateway_from_starting(make_bed: MakeBed) -> None:
    bed = make_bed(regions={"us": 1}, timing={"otlp_endpoint": "http://nowhere.invalid:4318", "trace_sampling": 100.0})
    bed.start(edge=False)
    assert ask(bed.gateways["us"].url).status_code == 200


@pytest.fixture
def streaming(make_bed: MakeBed, collector: Collector, model: Path) -> Bed:
    """Two regions with a real engine each, and an edge, all with relays; everything sends its spans."""
    flags = ("--otlp-endpoint", collector.url, "--trace-sampling", "0")

    def engine(name: str, address: str, port: int, folder: Path) -> Server:
        return cpu_engine(name, address, port, folder, model, flags)

    made = make_bed(
        regions={"us": 1, "eu": 1},
        make_engine=engine,
        mode=TrafficMode.ACTIVE_PASSIVE,
        timing={"otlp_endpoint": collector.url, "trace_sampling": 0.0},
        relay_flags=flags,
        env={"HOLDFAST_LOG_FORMAT": "json"},
    )
    made.start()
    return made


def stream(bed: Bed, trace: str, fault: Any = lambda: None) -> str:
    """A stream through the edge in a trace; after some tokens, injects the fault and reads on. The last line."""
    body = {"model": "llama", "max_tokens": 40, "stream": True, "ignore_eos": True, "temperature": 0, **COMPLETION}
    headers = {"traceparent": f"00-{trace}-{PARENT}-01", "x-request-id": "mine"}
    url = f"{bed.gateways['edge'].url}/v1/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=120) as answer:
        events = []
        for line in answer.iter_lines():
            events += [line] if line.startswith("data:") else []
            if len(events) == 10 and line:
                fault()
    return events[-1]


def test_a_stream_whose_engine_is_killed_is_one_trace(streaming: Bed, collector: Collector) -> None:
    trace = secrets.token_hex(16)
    assert stream(streaming, trace, streaming.engines["us-0"].kill) == "data: [DONE]"
    spans = collector.wait(trace, holdfast_edge=6, holdfast_relay=3, holdfast_gateway=4, holdfast_engine=1)

    print(*tree(spans), sep="\n")
    assert [(len(line) - len(line.lstrip())) // 2 for line in tree(spans)] == [0, 1, 2, 3, 4, 5, 6, 7, 3, 4, 5, 6, 7, 8]
    relay, first, second = [span for span in spans if span.sender == "holdfast-relay"]
    assert (relay.kind, relay.name, relay.failed) == ("SERVER", "text_completion llama", False)
    assert (first.failed, first.attributes["holdfast.region"]) == (True, "us")
    assert (second.failed, second.attributes["holdfast.region"]) == (False, "eu")
    ((event, told),) = relay.events
    assert (event, told["reason"], told["from"], told["to"]) == ("resume", "reset", "us", "eu")
    assert told["pause_ms"] > 0
    (engine,) = [span for span in spans if span.sender == "holdfast-engine"]
    generated = {"holdfast-relay": 40, "holdfast-engine": 40 - told["tokens"]}
    assert {span.sender: span.attributes["gen_ai.usage.output_tokens"] for span in (relay, engine)} == generated
    assert engine.attributes["gen_ai.response.finish_reasons"] == ["length"]
    assert engine.attributes["gen_ai.latency.time_to_first_token"] >= engine.attributes["gen_ai.latency.time_in_queue"]

    (lost,) = [line for line in log_lines(streaming.gateways["edge"].relay) if " lost us" in line["message"]]
    own = {"request_id": "mine", "trace_id": trace, "span_id": relay.span_id, "service": "default/chat"}
    assert own.items() <= lost.items()


def log_lines(server: Server | None) -> list[dict[str, Any]]:
    """What a process has logged as JSON."""
    assert server is not None
    return [json.loads(line) for line in server.log().splitlines()]


def test_every_line_of_a_gateway_is_json_where_that_is_asked_for(streaming: Bed) -> None:
    gateway = streaming.gateways["us"]
    for server in gateway.servers:
        server.terminate()
        server.wait(60)
    for server in gateway.servers:
        lines = log_lines(server)
        assert lines
        assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines), lines


def test_a_collector_that_hangs_or_dies_costs_no_stream_and_what_is_lost_is_counted(
    streaming: Bed, collector: Collector
) -> None:
    collector.hangs.set()
    assert stream(streaming, secrets.token_hex(16)) == "data: [DONE]"
    wait_for(lambda: metric(streaming, "edge", "holdfast_relay_spans_dropped_total") > 0, "the relay counts them")
    dropped = metric(streaming, "edge", "holdfast_relay_spans_dropped_total")
    collector.close()
    assert stream(streaming, secrets.token_hex(16), streaming.engines["us-0"].kill) == "data: [DONE]"
    wait_for(lambda: metric(streaming, "edge", "holdfast_relay_spans_dropped_total") > dropped, "and goes on counting")
    told = [line for line in log_lines(streaming.gateways["edge"].relay) if "collector" in line["message"]]
    assert len(told) == 1, "said once"
