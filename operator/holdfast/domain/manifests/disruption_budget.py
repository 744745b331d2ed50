"""The PodDisruptionBudget of a service's engines: voluntary evictions take one engine at a time."""

from __future__ import annotations

from typing import Any

from holdfast.api import names
from holdfast.domain.manifests.metadata import engine_name, metadata, selector
from holdfast.domain.observation import Observation


def disruption_budget(seen: Observation) -> dict[str, Any] | None:
    """None where the cluster serves no such kind. A region's last engine may be evicted: the others carry on.

    Warm engines count as any other: one stands in for a routed one that goes, so only one may be gone at a time.
    """
    version = seen.capabilities.pod_disruption_budget
    if version is None:
        return None
    return {
        "apiVersion": version,
        "kind": "PodDisruptionBudget",
        "metadata": metadata(seen.service, engine_name(seen.service), names.ENGINE_COMPONENT),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(seen.service)}},
    }
