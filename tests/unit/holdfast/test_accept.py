"""Which specs are refused, and with which words."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.api.conditions import Reason
from holdfast.api.region import Region, RegionSpec
from holdfast.domain.accept import accept
from holdfast.domain.decide import decide
from holdfast.domain.observation import Claim

GPU = {"type": "vllm", "gpu": {"perReplica": 2}, "parallelism": {"tensor": 2}}
WITNESS = Region(name="us-east", spec=RegionSpec.parse({"gateway": {"address": "a"}, "role": "Witness"}))
OLDER = Claim("default/first", "tiny-llama", "2026-01-01T10:00:00Z")
YOUNGER = Claim("default/third", "tiny-llama", "2026-01-01T12:00:00Z")


def test_a_healthy_spec_is_accepted(observe: Any) -> None:
    assert accept(observe()).accepted


def test_a_gpu_spec_whose_accelerators_match_its_parallelism_is_accepted(observe: Any) -> None:
    assert accept(observe(engine=GPU, model={"name": "m", "source": "hf://org/m"})).accepted


@pytest.mark.parametrize("source", ["hf://org/m@v1", "s3://bucket/m", "oci://registry/m:v1", "pvc://claim/m"])
@pytest.mark.parametrize("engine", ["openvino", "triton", "vllm"])
def test_every_engine_takes_its_model_from_everywhere_and_a_digest(observe: Any, source: str, engine: str) -> None:
    spec = {"model": {"name": "m", "source": source, "sha256": "0" * 64}, "engine": {"type": engine}}
    assert accept(observe(**spec)).accepted


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"meta": {"name": "a" * 51}}, Reason.NAME_UNUSABLE, "at most 50"),
        ({"meta": {"name": "chat.v2"}}, Reason.NAME_UNUSABLE, "lower-case letters"),
        ({"engine": {"type": "warp"}}, Reason.UNKNOWN_ENGINE, "openvino, triton, vllm"),
        ({"seen": {"engine_images": {}}}, Reason.ENGINE_IMAGE_MISSING, "spec.engine.image"),
        ({"model": {"name": "m", "source": "ftp://b/m"}}, Reason.MODEL_SOURCE_UNSUPPORTED, "file://, pvc://"),
        ({"engine": {"type": "openvino", "parallelism": {"tensor": 2}}}, Reason.GPU_MISMATCH, "one CPU host"),
        (
            {"engine": {**GPU, "gpu": {"perReplica": 1}}, "model": {"name": "m", "source": "hf://o/m"}},
            Reason.GPU_MISMATCH,
            "needs 2 accelerators",
        ),
        ({"regions": [{"name": "mars"}]}, Reason.UNKNOWN_REGION, "knows: ap-south, eu-west, us-east"),
        ({"seen": {"regions": {}}}, Reason.UNKNOWN_REGION, "knows: none"),
        (
            {"seen": {"regions": {"us-east": WITNESS}}, "regions": [{"name": "us-east"}]},
            Reason.REGION_NOT_SERVING,
            "witness",
        ),
        ({"defaults": {"replicas": {"min": 3, "max": 2}}}, Reason.REPLICAS_OUT_OF_RANGE, "at least 3 and at most 2"),
        (
            {"regions": [{"name": "us-east", "replicas": {"max": 1}}]},
            Reason.REPLICAS_OUT_OF_RANGE,
            "Region us-east is asked for at least 2",
        ),
        ({"defaults": {"replicas": {"min": 0}}}, Reason.REPLICAS_OUT_OF_RANGE, "No region runs"),
        (
            {"regions": [{"name": "us-east"}, {"name": "eu-west", "replicas": {"min": 0}, "warm": 2}]},
            Reason.REPLICAS_OUT_OF_RANGE,
            "eu-west is asked for 2 warm and no other engines",
        ),
        ({"traffic": {"hedgeAfter": "20m"}}, Reason.TRAFFIC_UNUSABLE, "hedgeAfter is 20m: make it at least 50ms"),
        ({"traffic": {"hedgeAfter": "0s"}}, Reason.TRAFFIC_UNUSABLE, "hedgeAfter is 0s"),
        (
            {"traffic": {"hedgeAfter": "2s", "fallback": {"service": "small"}}},
            Reason.TRAFFIC_UNUSABLE,
            "exclude each other",
        ),
        ({"traffic": {"stickyHeader": "X-Holdfast-Tenant"}}, Reason.TRAFFIC_UNUSABLE, "gateway's own header"),
        ({"traffic": {"stickyHeader": "Authorization"}}, Reason.TRAFFIC_UNUSABLE, "a credential"),
        ({"seen": {"claims": (OLDER,)}}, Reason.MODEL_NAME_TAKEN, "default/first"),
    ],
)
def test_an_impossible_spec_is_refused_with_a_sentence_and_changes_nothing(
    observe: Any, changes: dict[str, Any], reason: Reason, words: str
) -> None:
    seen = observe(**changes)

    decision = decide(seen)

    assert not decision.verdict.accepted
    assert decision.verdict.reason == reason
    assert words in decision.verdict.message
    assert decision.verdict.message.endswith(".")
    assert decision.work is None
    assert decision.changes == ()


def test_of_two_services_with_one_model_name_the_older_keeps_it(observe: Any) -> None:
    assert accept(observe(seen={"claims": (YOUNGER,)})).accepted
    assert not accept(observe(seen={"claims": (YOUNGER, OLDER)})).accepted


def test_services_with_one_model_name_and_one_age_never_both_lose(observe: Any) -> None:
    twin = Claim("default/zz", "tiny-llama", "2026-01-01T11:00:00Z")
    mine = Claim("default/chat", "tiny-llama", "2026-01-01T11:00:00Z")

    assert accept(observe(seen={"claims": (twin,)})).accepted
    assert not accept(observe(meta={"name": "zz"}, seen={"claims": (mine,)})).accepted
