"""What Prometheus is told of streams."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PAUSES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)


class Outcome(StrEnum):
    """How a stream ended for its client."""

    COMPLETED = "completed"
    CONTINUED = "continued"
    """Completed, by more than one engine."""
    REFUSED = "refused"
    """Answered with an error before it began."""
    FAILED = "failed"
    """Ended with an error event."""
    CLIENT_LEFT = "client_left"


class RelayMetrics:
    """The metrics of one relay."""

    def __init__(self, open_streams: Callable[[], int], buffered: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        name = "holdfast_relay_"
        self.streams = Counter(f"{name}streams", "Streams that have ended.", ["outcome"], registry=self._registry)
        self.resumes = Counter(
            f"{name}resumes", "Continuations, by what befell the engine before, and the region that took over.",
            ["reason", "region"], registry=self._registry,
        )  # fmt: skip
        self.pause = Histogram(
            f"{name}pause_seconds", "From the last token of an engine that was lost to the first of the next.",
            buckets=PAUSES, registry=self._registry,
        )  # fmt: skip
        self.tokens = Counter(f"{name}tokens", "Generated tokens given to clients.", registry=self._registry)
        Gauge(f"{name}open_streams", "Streams that run.", registry=self._registry).set_function(open_streams)
        Gauge(
            f"{name}buffered_bytes", "Parts of events, and text that waits for the rest of a character or stop string.",
            registry=self._registry,
        ).set_function(buffered)  # fmt: skip
        lost = Counter(f"{name}spans_dropped", "Spans that no collector took.", registry=self._registry)
        self.spans_dropped: Callable[[int], None] = lost.inc
        for outcome in Outcome:
            self.streams.labels(outcome.value)

    def render(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)
