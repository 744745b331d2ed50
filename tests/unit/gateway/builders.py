"""Routes and Kubernetes objects for the gateway's tests."""

from __future__ import annotations

import json
from typing import Any

from holdfast.api.names import (
    COMPONENT_LABEL,
    ENGINE_COMPONENT,
    MANAGED_BY_LABEL,
    MANAGER,
    ROUTE_COMPONENT,
    SERVICE_LABEL,
)
from holdfast.api.route import RegionTarget, Route

US = RegionTarget(name="us-east", address="192.0.2.1")
EU = RegionTarget(name="eu-west", address="192.0.2.2")
AP = RegionTarget(name="ap-south", address="192.0.2.3", peer_port=9081, weight=50)


def route(service: str = "chat", **fields: Any) -> Route:
    """A route of region us-east."""
    given = {"namespace": "default", "model": f"model-of-{service}", "region": "us-east", "regions": (US, EU, AP)}
    return Route(service=service, **(given | fields))


def config_map(made: Route | str, name: str = "chat-route", namespace: str = "default") -> dict[str, Any]:
    """A ConfigMap as the operator writes it; a string stands for a broken `route.json`."""
    text = made if isinstance(made, str) else json.dumps(made.wire())
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": {MANAGED_BY_LABEL: MANAGER, COMPONENT_LABEL: ROUTE_COMPONENT, SERVICE_LABEL: "chat"},
        },
        "data": {"route.json": text},
    }


def pod(
    name: str, ip: str | None = "10.0.0.1", service: str = "chat", started: bool = True, ready: int | None = None
) -> dict[str, Any]:
    """An engine's Pod; `ready` is the minute since which it has been ready."""
    condition = {"type": "Ready", "status": "False", "lastTransitionTime": "2030-01-01T00:59:00Z"}
    if ready is not None:
        condition |= {"status": "True", "lastTransitionTime": f"2030-01-01T00:{ready:02}:00Z"}
    return {
        "metadata": {
            "namespace": "default",
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": "2030-01-01T00:00:00Z",
            "labels": {MANAGED_BY_LABEL: MANAGER, COMPONENT_LABEL: ENGINE_COMPONENT, SERVICE_LABEL: service},
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Initialized", "status": "True"}, condition],
            **({"podIP": ip} if ip else {}),
            "containerStatuses": [{"name": "engine", "started": started, "ready": started}],
        },
    }
