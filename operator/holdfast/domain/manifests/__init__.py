"""The objects that a plan becomes: one builder per Kind, each returning fresh data."""

from __future__ import annotations

from typing import Any

from holdfast.domain.manifests.deployment import deployment
from holdfast.domain.manifests.disruption_budget import disruption_budget
from holdfast.domain.manifests.route import route
from holdfast.domain.manifests.service import service
from holdfast.domain.observation import Observation
from holdfast.domain.plan import Work

__all__ = ["manifests"]


def manifests(seen: Observation, work: Work) -> list[dict[str, Any]]:
    """Every object that must exist in this region for the plan to hold; engines only where the region serves."""
    objects = [route(seen, work)]
    if work.engines:
        objects += [deployment(seen, work), service(seen)]
        if budget := disruption_budget(seen):
            objects.append(budget)
    return objects
