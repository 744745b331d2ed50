"""What Prometheus is told of the limiter."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
LAGS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30)
PASSED, UNCOUNTED = "passed", "uncounted"
"""A request that its limits allow; one that passed as the store did not answer."""


class LimiterMetrics:
    """The metrics of one limiter."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        name = "holdfast_limiter_"
        self.decisions = Counter(
            f"{name}decisions", f"Requests by what became of them: {PASSED}, {UNCOUNTED} (the store did not answer), "
            "or what was over its limit.", ["outcome"], registry=self._registry,
        )  # fmt: skip
        self.store_errors = Counter(f"{name}store_errors", "Times that the store failed.", registry=self._registry)
        self.store_up = Gauge(f"{name}store_up", "Whether the store answered last.", registry=self._registry)
        self.latency = Histogram(
            f"{name}decision_seconds", "From a question to its answer.", buckets=LATENCIES, registry=self._registry
        )
        self.tokens = Counter(f"{name}tokens", "Tokens of ended requests that were counted.", registry=self._registry)
        self.untold = Counter(
            f"{name}untold",
            "Requests of tenants that ended well and whose tokens nobody told.",
            registry=self._registry,
        )
        self.token_lag = Histogram(
            f"{name}token_lag_seconds", "From a request's end until its tokens are read.", buckets=LAGS,
            registry=self._registry,
        )  # fmt: skip
        self.store_up.set(1)
        for outcome in (PASSED, UNCOUNTED, "requests", "tokens"):
            self.decisions.labels(outcome)

    def render(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)
