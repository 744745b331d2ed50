"""Spans on their way to a collector, with OpenTelemetry's SDK: a queue of fixed size and a thread of its own.

A collector that is slow, hangs or is gone costs no request: what the queue does not take, or the collector within a few
seconds, is dropped and counted.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from holdfast.telemetry.endpoint import parse_attributes, parse_endpoint
from holdfast.telemetry.spans import Attributes, Span, Tracing

log = logging.getLogger(__name__)
HELD_SPANS = 4096
BATCH = 256
BATCH_SECONDS = 1.0
"""How long a span waits for others to travel with."""
EXPORT_SECONDS = 2.0
CLOSE_SECONDS = 1.0
PROPAGATOR = TraceContextTextMapPropagator()


def exported(
    endpoint: str, percent: float, sender: str, attributes: str = "", dropped: Callable[[int], object] = lambda _: None
) -> Tracing:
    """Spans that go to the collector at `endpoint`; of traces that begin here, `percent` of them. Raises ValueError.

    `sender` is their `service.name`, `attributes` what all say (`key=value,…`); `dropped` hears how many were lost.
    """
    exporter = OTLPSpanExporter(endpoint=parse_endpoint(endpoint).url, timeout=EXPORT_SECONDS)
    own = {"service.name": sender, "host.name": socket.gethostname()}
    resource = Resource.create({**parse_attributes(attributes), **own})
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(percent / 100)), resource=resource, shutdown_on_exit=False
    )
    provider.add_span_processor(Sending(exporter, dropped))
    return Exported(provider)


class Sending(SpanProcessor):
    """Ended spans, until they are sent or dropped."""

    def __init__(self, exporter: SpanExporter, dropped: Callable[[int], object], most: int = HELD_SPANS) -> None:
        self._exporter = exporter
        self._dropped = dropped
        self._waiting: queue.Queue[ReadableSpan | None] = queue.Queue(most)
        self._works = True
        self._thread = threading.Thread(target=self._send, name="spans", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        """Never waits."""
        if not span.context.trace_flags.sampled:
            return
        try:
            self._waiting.put_nowait(span)
        except queue.Full:
            self._dropped(1)

    def shutdown(self) -> None:
        """Sends what is left, for a moment at most."""
        try:
            self._waiting.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(CLOSE_SECONDS)

    def _send(self) -> None:
        while (batch := self._batch()) is not None:
            if batch:
                self._export(batch)

    def _batch(self) -> list[ReadableSpan] | None:
        """What came within a while of the first; None after the last."""
        if (first := self._waiting.get()) is None:
            return None
        batch, until = [first], time.monotonic() + BATCH_SECONDS
        while len(batch) < BATCH and (left := until - time.monotonic()) > 0:
            try:
                each = self._waiting.get(timeout=left)
            except queue.Empty:
                break
            if each is None:
                self._export(batch)
                return None
            batch.append(each)
        return batch

    def _export(self, batch: list[ReadableSpan]) -> None:
        try:
            sent = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception as error:
            log.debug("spans cannot be sent: %s", error)
            sent = False
        if not sent:
            self._dropped(len(batch))
        if sent is not self._works:
            self._works = sent
            log.log(
                logging.INFO if sent else logging.WARNING,
                "the collector takes spans again" if sent else "the collector takes no spans: they are dropped",
            )


class Exported(Tracing):
    """Spans that are sent."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("holdfast")

    def begin(self, name: str, headers: Mapping[str, str], attributes: Attributes | None = None) -> Span:
        context = PROPAGATOR.extract(headers)
        kind = trace.SpanKind.SERVER
        return _Sent(self._tracer, self._tracer.start_span(name, context, kind=kind, attributes=attributes))

    def close(self) -> None:
        self._provider.shutdown()


class _Sent(Span):
    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        self._ended = False
        context = span.get_span_context()
        self.trace_id, self.span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"

    def child(self, name: str, attributes: Attributes | None = None) -> Span:
        context = trace.set_span_in_context(self._span)
        kind = trace.SpanKind.CLIENT
        return _Sent(self._tracer, self._tracer.start_span(name, context, kind=kind, attributes=attributes))

    def headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        PROPAGATOR.inject(found, trace.set_span_in_context(self._span))
        return found

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        self._span.add_event(name, attributes)

    def fail(self, kind: str, what: str = "") -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(trace.StatusCode.ERROR, what or None)

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._span.end()
