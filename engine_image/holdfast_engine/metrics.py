"""The engine's Prometheus metrics, under vLLM's names and labels, so that dashboards and autoscalers made for
vLLM work unchanged. Bucket bounds are vLLM's (its v1 metrics logger). Times in seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from holdfast_engine.admission import Priority

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FINISH_REASONS = ("stop", "length", "abort", "error")
REFUSALS = ("queue_full", "deadline")
_TTFT_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_ITL_BOUNDS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_E2E_BOUNDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # no loop runs in this thread
        return 0


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class EngineMetrics(Collector):
    """One registry per engine, one model per engine."""

    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry()
        self._model_name = model_name
        self._prefix_cache: dict[str, int] = {}
        self._running = self._gauge("vllm:num_requests_running", "Requests in the running batch.")
        self._waiting = self._gauge("vllm:num_requests_waiting", "Requests waiting to be processed.")
        self._cache = self._gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        self._prompt_tokens = self._counter("vllm:prompt_tokens", "Prompt tokens processed.")
        self._generation_tokens = self._counter("vllm:generation_tokens", "Tokens generated.")
        self._ttft = self._histogram("vllm:time_to_first_token_seconds", "Time to first token.", _TTFT_BOUNDS)
        self._itl = self._histogram("vllm:inter_token_latency_seconds", "Inter-token latency.", _ITL_BOUNDS)
        self._e2e = self._histogram("vllm:e2e_request_latency_seconds", "Whole requests.", _E2E_BOUNDS)
        self._finished = Counter(
            "vllm:request_success",
            "Requests by the reason they ended for.",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )
        self._refused = Counter(
            "holdfast:requests_refused",
            "Requests that were not started: the queue was full, or their time was over.",
            ["model_name", "reason", "priority"],
            registry=self.registry,
        )
        self._by_class = Gauge(
            "holdfast:requests_waiting_by_priority",
            "Requests waiting for a place.",
            ["model_name", "priority"],
            registry=self.registry,
        )
        self.spans_dropped: Callable[[int], None] = self._counter(
            "holdfast:spans_dropped", "Spans that no collector took."
        ).inc
        for reason in FINISH_REASONS:
            self._finished.labels(model_name, reason)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["model_name"], registry=self.registry).labels(self._model_name)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ["model_name"], registry=self.registry).labels(self._model_name)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
        family = Histogram(name, text, ["model_name"], buckets=bounds, registry=self.registry)
        return family.labels(self._model_name)

    def follow(
        self,
        running: Callable[[], int],
        waiting: Callable[[], int],
        queued: Callable[[Priority], int],
        cache: Callable[[], float],
    ) -> None:
        """Read the gauges from these when scraped."""
        self._gauge("holdfast:event_loop_tasks", "Tasks of the shim's event loop.").set_function(_tasks)
        self._gauge("holdfast:open_files", "File descriptors of the shim's process.").set_function(_open_files)
        for priority in Priority:
            self._by_class.labels(self._model_name, priority).set_function(partial(queued, priority))
            for reason in REFUSALS:
                self._refused.labels(self._model_name, reason, priority)
        self._running.set_function(running)
        self._waiting.set_function(waiting)
        self._cache.set_function(cache)

    def prefix_cache(self, queries: int, hits: int) -> None:
        """Totals since the engine's start, as it counts them; not told before the first call."""
        if not self._prefix_cache:
            self.registry.register(self)
        self._prefix_cache = {"queries": queries, "hits": hits}

    def collect(self) -> Iterator[Metric]:
        """The metrics whose totals the engine itself keeps, as prometheus-client asks for them."""
        for name, total in self._prefix_cache.items():
            family = CounterMetricFamily(
                f"vllm:prefix_cache_{name}", f"Prefix cache {name}, in tokens.", labels=["model_name"]
            )
            family.add_metric([self._model_name], total)
            yield family

    def prompt_accepted(self, tokens: int) -> None:
        self._prompt_tokens.inc(tokens)

    def tokens_generated(self, count: int, *, first: bool, seconds: float) -> None:
        """`seconds` since the request's arrival for its first tokens, since its last token otherwise."""
        self._generation_tokens.inc(count)
        (self._ttft if first else self._itl).observe(seconds)

    def request_finished(self, reason: str, seconds: float) -> None:
        self._finished.labels(self._model_name, reason).inc()
        self._e2e.observe(seconds)

    def refused(self, reason: str, priority: Priority) -> None:
        self._refused.labels(self._model_name, reason, priority).inc()

    def render(self) -> bytes:
        return generate_latest(self.registry)
