"""Names, labels and owners, equal on every object of a service."""

from __future__ import annotations

from typing import Any

from holdfast.api import names
from holdfast.api.llmservice import LLMService


def selector(service: LLMService) -> dict[str, str]:
    """Labels that select the engines' Pods of a service within its namespace; they never change."""
    return {names.COMPONENT_LABEL: names.ENGINE_COMPONENT, names.SERVICE_LABEL: service.name}


def engine_name(service: LLMService) -> str:
    """Name of the engines' Deployment, Service and disruption budget."""
    return f"{service.name}-engine"


def metadata(service: LLMService, name: str, component: str, **labels: str) -> dict[str, Any]:
    """Metadata of a child: it goes when its service goes."""
    return {
        "name": name,
        "namespace": service.namespace,
        "labels": {
            names.MANAGED_BY_LABEL: names.MANAGER,
            names.COMPONENT_LABEL: component,
            names.SERVICE_LABEL: service.name,
            **labels,
        },
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": "LLMService",
                "name": service.name,
                "uid": service.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
