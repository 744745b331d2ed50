"""The ConfigMap that tells this region's gateways, and the edges, how to route a service."""

from __future__ import annotations

import json
from typing import Any

from holdfast.api import names
from holdfast.api.llmservice import LLMService
from holdfast.api.route import EngineProtocol, RevisionShare, Route
from holdfast.domain.engines import READY_PATH
from holdfast.domain.manifests.metadata import metadata
from holdfast.domain.observation import Observation
from holdfast.domain.plan import Work


def route(seen: Observation, work: Work) -> dict[str, Any]:
    """One `Route` as JSON; it exists in every region, also where no engine runs: that gateway forwards."""
    service = seen.service
    content = Route(
        namespace=service.namespace,
        service=service.name,
        model=service.spec.model.name,
        region=seen.region,
        local=work.replicas > 0,
        engine_protocol=EngineProtocol.H2C,
        routed=routed_of(work),
        revisions=revisions_of(work),
        sticky_header=service.spec.traffic.sticky_header,
        affinity=service.spec.traffic.affinity,
        health_path=READY_PATH,
        regions=work.targets,
        mode=service.spec.traffic.mode,
        max_stream=service.spec.traffic.max_stream,
        fallback=service.spec.traffic.fallback and service.spec.traffic.fallback.service,
        hedge_after=service.spec.traffic.hedge_after,
        max_resumes=service.spec.traffic.max_resumes,
        progress_timeout=service.spec.failover.progress_timeout,
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(service, route_name(service), names.ROUTE_COMPONENT),
        "data": {names.ROUTE_KEY: json.dumps(content.wire(), sort_keys=True)},
    }


def route_name(service: LLMService) -> str:
    """Name of the ConfigMap."""
    return f"{service.name}-route"


def routed_of(work: Work) -> int | None:
    """How many engines gateways are to route; None: all, as while engines are replaced there may be one more."""
    return work.replicas if work.warm else None


def revisions_of(work: Work) -> tuple[RevisionShare, ...]:
    """The shares as planned; the warm engines are those of the revision that the Deployment runs."""
    return tuple(
        share.model_copy(update={"routed": routed_of(work)})
        if share.name == work.revision and share.routed is None
        else share
        for share in work.revisions
    )
