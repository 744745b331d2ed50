"""Observations to decide on: a healthy three-region service, and any change to it; and regions that replicate one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.holdfast.replicating import Regions

from holdfast.adapters.observe import parse_service
from holdfast.api.llmservice import LLMServiceSpec
from holdfast.api.region import Region, RegionSpec
from holdfast.domain.observation import Observation

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
REGIONS = ("us-east", "eu-west", "ap-south")

Observe = Callable[..., Observation]


def manifest(spec: dict[str, Any], **meta: Any) -> dict[str, Any]:
    """An `LLMService` as an API server gives it out."""
    metadata = {
        "namespace": "default",
        "name": "chat",
        "uid": "0f1e",
        "generation": 3,
        "creationTimestamp": "2026-01-01T11:00:00Z",
    }
    return {
        "apiVersion": "serving.holdfast.dev/v1alpha1",
        "kind": "LLMService",
        "metadata": metadata | meta,
        "spec": spec,
    }


def spec(**changes: Any) -> dict[str, Any]:
    """The spec of `chat` on CPUs in three regions, with whole top-level fields replaced."""
    whole: dict[str, Any] = {
        "model": {"name": "tiny-llama", "source": "file:///models/tiny-llama.gguf"},
        "engine": {"type": "openvino"},
        "defaults": {"replicas": {"min": 2}},
        "regions": [{"name": name} for name in REGIONS],
    }
    return {**whole, **changes}


@pytest.fixture
def observe() -> Observe:
    """Builds an observation: `observe(engine={...})` changes the spec, `seen={...}` the observation's own fields."""

    def build(seen: dict[str, Any] | None = None, meta: dict[str, Any] | None = None, **changes: Any) -> Observation:
        service = parse_service(manifest(spec(**changes), **(meta or {})))
        fields: dict[str, Any] = {
            "now": NOW,
            "region": "us-east",
            "service": service,
            "regions": {
                name: Region(name=name, spec=RegionSpec.parse({"gateway": {"address": f"198.18.0.{at}"}}))
                for at, name in enumerate(REGIONS, 11)
            },
            "engine_images": {
                "openvino": "holdfast/engine:1",
                "triton": "holdfast/engine-triton:1",
                "vllm": "holdfast/engine-vllm:1",
            },
        }
        return Observation(**{**fields, **(seen or {})})

    return build


@pytest.fixture
def make_spec() -> Callable[..., LLMServiceSpec]:
    """Builds a parsed spec."""
    return lambda **changes: LLMServiceSpec.parse(spec(**changes))


@pytest.fixture
def regions() -> Regions:
    """A service that was applied in the first region and is everywhere."""
    made = Regions()
    made["us-east"].create("a")
    made.settle()
    return made
