"""The operator's own metrics, in Prometheus' text format; and how long ago the last decision was."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from holdfast.api.llmservice import LLMServiceStatus

REGISTRY = CollectorRegistry()

RECONCILES = Counter("holdfast_reconciles_total", "Decisions taken, by outcome.", ["outcome"], registry=REGISTRY)
DURATION = Histogram(
    "holdfast_reconcile_seconds",
    "Time of one decision with its writes, in seconds.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
WRITES = Counter("holdfast_writes_total", "Writes to the API server, by kind.", ["kind"], registry=REGISTRY)
CONDITION = Gauge(
    "holdfast_service_condition",
    "1 if the condition's status is True, else 0.",
    ["namespace", "service", "type"],
    registry=REGISTRY,
)
READY = Gauge(
    "holdfast_service_ready_engines",
    "Engines that take requests.",
    ["namespace", "service"],
    registry=REGISTRY,
)
WARM = Gauge(
    "holdfast_service_warm_engines",
    "Engines that could take requests and are kept warm.",
    ["namespace", "service"],
    registry=REGISTRY,
)
LEADING = Gauge("holdfast_leading", "1 while this operator is the leader.", registry=REGISTRY)
EPOCH = Gauge("holdfast_epoch", "Largest epoch seen at any voter.", registry=REGISTRY)
ELECTIONS = Counter("holdfast_elections_won_total", "Times that this operator became the leader.", registry=REGISTRY)
LEASE_WRITES = Counter("holdfast_lease_writes_total", "Writes of Leases, by outcome.", ["outcome"], registry=REGISTRY)
LAG = Histogram(
    "holdfast_edit_to_majority_seconds",
    "Time from this operator seeing an edit of its own region until a majority held it, in seconds.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=REGISTRY,
)
COPIES = Counter(
    "holdfast_copy_steps_total", "Steps of replication in this region, by kind.", ["step"], registry=REGISTRY
)
DECISIONS = Counter(
    "holdfast_traffic_decisions_total", "Changes of a region's traffic that this leader decided.", ["reason"],
    registry=REGISTRY,
)  # fmt: skip
PLANS_REFUSED = Counter(
    "holdfast_plans_refused_total", "Plans of an older epoch than this region is sealed with.", registry=REGISTRY
)
PROBES = Counter(
    "holdfast_probes_total", "Probes of services by this observer.", ["region", "outcome"], registry=REGISTRY
)
PEER = Gauge(
    "holdfast_region_reachable", "1 if a region's API server can be worked with.", ["region"], registry=REGISTRY
)
LAST = Gauge("holdfast_last_reconcile_timestamp_seconds", "Unix time of the last decision.", registry=REGISTRY)


def serve(port: int) -> None:
    """Answer `/metrics` on all addresses from a thread of its own."""
    start_http_server(port, registry=REGISTRY)


def record_status(namespace: str, service: str, status: LLMServiceStatus) -> None:
    """Publish a service's conditions and engines."""
    for condition in status.conditions:
        CONDITION.labels(namespace, service, condition.type).set(condition.status == "True")
    READY.labels(namespace, service).set(status.ready_replicas or 0)
    WARM.labels(namespace, service).set(status.warm_replicas)


def record_reconcile(outcome: str, seconds: float) -> None:
    """Publish one decision."""
    RECONCILES.labels(outcome).inc()
    DURATION.observe(seconds)
    LAST.set(time.time())


def forget(namespace: str, service: str) -> None:
    """Drop the series of a service that is gone."""
    READY.remove_by_labels({"namespace": namespace, "service": service})
    WARM.remove_by_labels({"namespace": namespace, "service": service})
    CONDITION.remove_by_labels({"namespace": namespace, "service": service})
