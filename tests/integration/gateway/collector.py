"""A collector of spans: OTLP over HTTP as any backend takes it, parsed with OpenTelemetry's own messages."""

from __future__ import annotations

import gzip
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.integration.gateway.bed import wait_for

KINDS = {0: "UNSPECIFIED", 1: "INTERNAL", 2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}


@dataclass(frozen=True)
class Span:
    """One span as it came."""

    sender: str
    """`service.name`."""
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: float
    seconds: float
    attributes: dict[str, Any]
    resource: dict[str, Any]
    events: tuple[tuple[str, dict[str, Any]], ...]
    failed: bool

    def __str__(self) -> str:
        wanted = ("http.response.status_code", "holdfast.region", "holdfast.attempts", "response_flags")
        told = [
            f"{key.rpartition('.')[2]}={self.attributes[key]}" for key in wanted if self.attributes.get(key, "-") != "-"
        ]
        told += [
            f"{name}({', '.join(f'{key}={value}' for key, value in fields.items())})" for name, fields in self.events
        ]
        return f"{self.sender} {self.kind} {self.name}  {self.seconds:.2f} s  {' '.join(told)}{' FAILED' * self.failed}"


class Collector:
    """Listens on a port of 127.0.0.1."""

    def __init__(self, port: int = 0) -> None:
        self.status = 200
        self.hangs = threading.Event()
        """Set: requests are read and never answered."""
        self.asked = 0
        self._messages: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                collector.asked += 1
                body = self.body()
                if collector.hangs.is_set():
                    collector.closed.wait()
                    return
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                if collector.status == 200:
                    collector._messages.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def body(self) -> bytes:
                """Of a known length, or in chunks as Envoy sends it."""
                if length := self.headers.get("content-length"):
                    return self.rfile.read(int(length))
                read = b""
                while size := int(self.rfile.readline(), 16):
                    read += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return read

            def log_message(self, *_: Any) -> None:
                pass

        self.closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """What `--otlp-endpoint` is given."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """From now on, connections are refused."""
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()

    def raw(self) -> bytes:
        """All that came, to be searched for what must not be there."""
        return b"".join(message.SerializeToString() for message in list(self._messages))

    def spans(self) -> list[Span]:
        """All that came."""
        return [span for message in list(self._messages) for span in read(message)]

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of one trace, in the order in which they began."""
        return sorted((span for span in self.spans() if span.trace_id == trace_id), key=lambda span: span.start)

    def wait(self, trace_id: str, **senders: int) -> list[Span]:
        """The spans of one trace, once there are as many as expected of each sender (with _ for -)."""
        wanted = {sender.replace("_", "-"): count for sender, count in senders.items()}

        def complete() -> bool:
            counted = Counter(span.sender for span in self.trace(trace_id))
            return all(counted[sender] >= count for sender, count in wanted.items())

        wait_for(complete, f"the spans {wanted}")
        return self.trace(trace_id)


def read(message: ExportTraceServiceRequest) -> Iterator[Span]:
    """The spans of one export."""
    for group in message.resource_spans:
        resource = fields(group.resource.attributes)
        for scope in group.scope_spans:
            for each in scope.spans:
                yield span_of(each, resource)


def span_of(each: SpanMessage, resource: dict[str, Any]) -> Span:
    """A span out of its message."""
    events = tuple((event.name, fields(event.attributes)) for event in each.events)
    return Span(
        sender=str(resource.get("service.name")),
        name=each.name,
        kind=KINDS[each.kind],
        trace_id=each.trace_id.hex(),
        span_id=each.span_id.hex(),
        parent_id=each.parent_span_id.hex(),
        start=each.start_time_unix_nano / 1e9,
        seconds=(each.end_time_unix_nano - each.start_time_unix_nano) / 1e9,
        attributes=fields(each.attributes),
        resource=resource,
        events=events,
        failed=each.status.code == 2,
    )


def fields(pairs: Any) -> dict[str, Any]:
    """Attributes as a mapping."""
    return {pair.key: plain(pair.value) for pair in pairs}


def plain(value: AnyValue) -> Any:
    """A value as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


def tree(spans: list[Span]) -> list[str]:
    """One line a span, indented below its parent; roots are those whose parent did not come."""
    known = {span.span_id for span in spans}
    lines: list[str] = []

    def show(parent: str, depth: int) -> None:
        for span in spans:
            if span.parent_id == parent:
                lines.append("  " * depth + str(span))
                show(span.span_id, depth + 1)

    for root in sorted({span.parent_id for span in spans} - known):
        show(root, 0)
    return lines
