"""Spans on their way: what a collector that does not work may cost, which is spans."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from holdfast.telemetry import options
from holdfast.telemetry.export import Exported, Sending
from holdfast.telemetry.spans import NOTHING, OFF

KEPT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
LEFT_OUT = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}


class Collector(SpanExporter):
    """Takes spans once it is let go."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.goes_on = threading.Event()
        self.names: list[str] = []
        self._result = result

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.goes_on.wait(30)
        self.names += [span.name for span in spans]
        return self._result


def spans_to(collector: Collector, dropped: list[int], most: int = 100) -> Exported:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Sending(collector, dropped.append, most))
    return Exported(provider)


def test_spans_of_a_kept_trace_are_sent_and_are_children_of_who_asked() -> None:
    collector, dropped = Collector(), list[int]()
    collector.goes_on.set()
    tracing = spans_to(collector, dropped)
    span = tracing.begin("request", KEPT, {"a": 1})
    child = span.child("attempt")
    assert child.headers()["traceparent"] == f"00-{span.trace_id}-{child.span_id}-01"
    assert span.trace_id == KEPT["traceparent"].split("-")[1]
    child.end()
    span.end()
    span.end()
    left_out = tracing.begin("left out", LEFT_OUT)
    assert left_out.headers()["traceparent"].endswith("-00"), "the decision is passed on"
    left_out.end()
    tracing.close()
    assert (collector.names, dropped) == (["attempt", "request"], [])


def test_what_a_hanging_collector_leaves_no_room_for_is_dropped_and_counted() -> None:
    collector, dropped = Collector(), list[int]()
    tracing = spans_to(collector, dropped, most=10)
    for number in range(1000):
        tracing.begin(str(number), KEPT).end()
    assert sum(dropped) > 0
    collector.goes_on.set()
    tracing.close()
    assert len(collector.names) + sum(dropped) == 1000, "each is sent or counted"


def test_what_a_collector_refuses_is_dropped_and_counted() -> None:
    collector, dropped = Collector(SpanExportResult.FAILURE), list[int]()
    collector.goes_on.set()
    tracing = spans_to(collector, dropped)
    tracing.begin("lost", KEPT).end()
    tracing.close()
    assert dropped == [1]


def test_without_an_endpoint_there_is_nothing() -> None:
    assert options.tracing("", 100.0, "sender") is OFF
    span = OFF.begin("request", KEPT)
    assert span is NOTHING
    assert span.child("attempt") is NOTHING
    assert span.headers() == {}
