"""What Prometheus is told of the ledger."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from holdfast_gateway.ledger.record import Outcome


class Loss(StrEnum):
    """Why a record will never come to the sink."""

    SPOOL_FULL = "spool_full"
    """Dropped, eldest first, as the spool had reached its size."""
    BROKEN = "broken"
    """A line that is no record: its writer died, or the disk was full."""
    REFUSED = "refused"
    """The sink will not take it."""


class LedgerMetrics:
    """The metrics of one shipper."""

    def __init__(self, lag: Callable[[], float], spool: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        name = "holdfast_ledger_"
        self.records = Counter(
            f"{name}records", "Requests that have ended, as read from the spool.", ["outcome"], registry=self._registry
        )
        self.shipped = Counter(f"{name}shipped", "Records that the sink has acknowledged.", registry=self._registry)
        self.lost = Counter(
            f"{name}lost_records", "Records that will never come to the sink.", ["reason"], registry=self._registry
        )
        self.duplicates = Counter(
            f"{name}duplicates", "Lines of a request of which a record had gone.", registry=self._registry
        )
        self.failures = Counter(f"{name}sink_failures", "Batches that the sink did not take.", registry=self._registry)
        Gauge(
            f"{name}lag_seconds", "Since the end of the eldest request whose record the sink has not acknowledged.",
            registry=self._registry,
        ).set_function(lag)  # fmt: skip
        Gauge(f"{name}spool_bytes", "Size of the spool.", registry=self._registry).set_function(spool)
        for outcome in Outcome:
            self.records.labels(outcome.value)
        for reason in Loss:
            self.lost.labels(reason.value)

    def render(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)
