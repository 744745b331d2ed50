"""A leader for the tests: carries out orders as the real one does, with the real decisions, in one thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from tests.integration.cli.servers import Clusters

from holdfast.api.conditions import Reason
from holdfast.api.llmservice import LLMServiceSpec
from holdfast.api.names import API_VERSION, EPOCH_ANNOTATION, LEASE, NAMESPACE
from holdfast.api.region import Verdict
from holdfast.cli.observe import read_site
from holdfast.cli.server import path
from holdfast.domain import orders
from holdfast.domain.health import Judgement
from holdfast.domain.lead import Service, lead
from holdfast.domain.observation import Version

SPEC: dict[str, Any] = {
    "model": {"name": "tiny", "source": "file:///m"},
    "engine": {"type": "openvino"},
    "defaults": {"replicas": {"min": 1, "max": 2}},
    "regions": [{"name": "us-east"}, {"name": "eu-west"}],
    "failover": {"failback": {"steps": [25, 100], "hold": "1s"}, "healthyAfter": "1s"},
}
SEEN = {"verdict": "Healthy", "reason": "Answering", "message": "It answers."}


def populate(clusters: Clusters) -> None:
    """What operators would have written: the service, its status, what each sees, and the Lease of us-east."""
    for name, server in clusters.servers.items():
        service = {"apiVersion": API_VERSION, "kind": "LLMService", "spec": SPEC}
        service["metadata"] = {"name": "chat", "namespace": "default"}
        server.apply(service, "test")
        replication = {"number": 4, "digest": "d", "holders": ["ap-south", "eu-west", "us-east"]}
        status = {"region": name, "replication": replication, "readyReplicas": 0 if name == "ap-south" else 1}
        server.merge(path("LLMService", "default", "chat") + "/status", {"status": status}, "test")
        for region in clusters.servers:
            services = [] if region == "ap-south" else [{"service": "default/chat", **SEEN}]
            seen = {"observer": name, "verdict": "Healthy", "services": services}
            server.merge(path("Region", name=region) + "/status", {"status": seen}, "test")
        renewed = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": LEASE, "namespace": NAMESPACE, "annotations": {EPOCH_ANNOTATION: "7"}},
            "spec": {"holderIdentity": "us-east_0a1b2c3d", "leaseDurationSeconds": 15, "renewTime": renewed},
        }
        server.apply(lease, "test")


def lead_once(clusters: Clusters) -> None:
    """Read every region, decide, and write every region's plan."""
    sites = {name: read_site(server) for name, server in clusters.servers.items()}
    regions = sites["us-east"].regions
    healthy = Judgement(Verdict.HEALTHY, Reason.ANSWERING, "3 of 3 observers see it answer.")
    seen = Service(
        now=datetime.now(UTC),
        region="us-east",
        epoch=7,
        name="chat",
        version=Version(0, 4, "d"),
        spec=LLMServiceSpec.parse(SPEC),
        regions=regions,
        engine_images={"openvino": "holdfast/engine:1"},
        plans={name: site.plans["default/chat"] for name, site in sites.items() if "default/chat" in site.plans},
        health=dict.fromkeys(regions, healthy),
        orders={name: orders.order(each.regions[name].annotations for each in sites.values()) for name in regions},
    )
    for name, plan in lead(seen).plans.items():
        manifest = {"apiVersion": API_VERSION, "kind": "RegionPlan", "spec": plan.wire()}
        manifest["metadata"] = {"name": "chat", "namespace": "default"}
        clusters.servers[name].apply(manifest, "test")


@contextmanager
def leading(clusters: Clusters) -> Iterator[None]:
    """Lead in the background."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(0.2):
            lead_once(clusters)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
