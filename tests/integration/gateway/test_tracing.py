"""Requests as traces: real Envoys, and a collector that reads what they export."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.integration.gateway.bed import Bed, wait_for
from tests.integration.gateway.collector import Collector, Span, tree
from tests.integration.gateway.conftest import MakeBed

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
