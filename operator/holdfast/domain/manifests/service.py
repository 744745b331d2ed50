"""The Service in front of a service's engines in this region: for debugging and for scraping, not for traffic."""

from __future__ import annotations

from typing import Any

from holdfast.api import names
from holdfast.domain.manifests.metadata import engine_name, metadata, selector
from holdfast.domain.observation import Observation


def service(seen: Observation) -> dict[str, Any]:
    """Headless: it only names the engines' Pods. Gateways find engines by their Pods."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(seen.service, engine_name(seen.service), names.ENGINE_COMPONENT),
        "spec": {
            "clusterIP": "None",
            "selector": selector(seen.service),
            "ports": [
                {
                    "name": "http",
                    "port": names.ENGINE_PORT,
                    "targetPort": names.ENGINE_PORT,
                    "protocol": "TCP",
                }
            ],
        },
    }
