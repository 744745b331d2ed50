"""The objects that Holdfast makes, as golden files: read them to see what runs.

`REFRESH_GOLDEN=1 pytest tests/unit/holdfast/test_manifests.py` writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from holdfast.domain.manifests import manifests
from holdfast.domain.observation import Capabilities, Telemetry
from holdfast.domain.plan import plan_alone
from holdfast.domain.revision import revision_of
from holdfast_engine.__main__ import serve

GOLDEN = Path(__file__).parents[2] / "golden" / "manifests"
VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")

CASES: dict[str, dict[str, Any]] = {
    "cpu": {},
    "fetched-and-verified": {
        "model": {"name": "llama-3-8b", "source": "s3://models/llama-3-8b.gguf", "sha256": "0123456789abcdef" * 4},
    },
    "gpu-vllm": {
        "model": {"name": "llama-3-70b", "source": "pvc://models/llama-3-70b", "maxModelLen": 8192},
        "engine": {
            "type": "vllm",
            "args": ["--enable-prefix-caching"],
            "parallelism": {"tensor": 4, "pipeline": 2},
            "gpu": {"perReplica": 8},
            "resources": {"requests": {"cpu": "16", "memory": "128Gi"}, "limits": {"memory": "256Gi"}},
            "env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}],
            "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "imagePullSecrets": ["registry"],
        },
    },
    "gpu-vllm-fetched-and-verified": {
        "model": {"name": "llama-3-8b", "source": "hf://meta-llama/Llama-3-8B", "sha256": "0123456789abcdef" * 4},
        "engine": {"type": "vllm"},
    },
    "gpu-triton": {
        "model": {"name": "llama-3-8b", "source": "pvc://models/repository"},
        "engine": {"type": "triton", "args": ["--log-verbose=1"]},
    },
    "traced": {
        "engine": {"type": "openvino", "env": [{"name": "HOLDFAST_SERVE_TRACE_SAMPLING", "value": "100"}]},
        "seen": {"telemetry": Telemetry("http://otel-collector:4318", 2.5, "json")},
    },
    "warm": {"defaults": {"replicas": {"min": 2, "max": 4}, "warm": 1}},
    "not-served-here": {"regions": [{"name": "eu-west"}, {"name": "ap-south", "weight": 10}]},
    "active-passive-old-cluster": {
        "traffic": {"mode": "ActivePassive", "maxStream": "90s"},
        "regions": [{"name": "eu-west"}, {"name": "us-east", "replicas": {"min": 1}}],
        "seen": {"capabilities": Capabilities(pod_disruption_budget="policy/v1beta1")},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_the_manifests_are_the_golden_ones(observe: Any, case: str) -> None:
    seen = observe(**CASES[case])
    text = yaml.safe_dump_all(manifests(seen, plan_alone(seen)), sort_keys=False, width=110)
    golden = GOLDEN / f"{case}.yaml"
    if os.environ.get("REFRESH_GOLDEN"):
        golden.write_text(text)

    assert text == golden.read_text()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", [case for case in CASES if "old" not in case])
def test_the_manifests_are_valid_in_current_kubernetes(observe: Any, case: str, version: str) -> None:
    seen = observe(**CASES[case])
    for manifest in manifests(seen, plan_alone(seen)):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_what_an_engine_runs_decides_its_revision_and_nothing_else_does(make_spec: Any) -> None:
    first = revision_of(make_spec(), "image:1")

    assert revision_of(make_spec(traffic={"maxStream": "1m"}, regions=[{"name": "eu-west"}]), "image:1") == first
    assert revision_of(make_spec(), "image:2") != first
    assert revision_of(make_spec(engine={"type": "openvino", "args": ["--threads=4"]}), "image:1") != first
    pinned = {"name": "tiny-llama", "source": "file:///models/tiny.gguf", "sha256": "0" * 64}
    assert revision_of(make_spec(model=pinned), "i") != revision_of(
        make_spec(model={**pinned, "sha256": "1" * 64}), "i"
    )
    assert revision_of(make_spec(model={"name": "other", "source": "file:///o"}), "image:1") != first


@pytest.mark.parametrize(("engine", "own"), [("openvino", "--threads=2"), ("vllm", "--dtype=half")])
def test_the_shim_takes_what_it_is_told(observe: Any, engine: str, own: str) -> None:
    model = {"name": "m", "source": "hf://org/m", "sha256": "0" * 64, "maxModelLen": 512}
    seen = observe(model=model, engine={"type": engine, "args": [own]}, traffic={"maxStream": "90s"})
    [deployment] = [each for each in manifests(seen, plan_alone(seen)) if each["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]

    told = serve.make_context("serve", container["args"][1:]).params

    assert (told["kind"], told["model"], told["sha256"]) == (engine, "hf://org/m", "0" * 64)
    assert (told["served_name"], told["port"], told["drain_seconds"]) == ("m", 8000, 90)
    assert told["grpc_port"] == container["ports"][1]["containerPort"]
    if engine == "vllm":
        parallelism = ("--tensor-parallel-size=1", "--pipeline-parallel-size=1")
        assert told["arguments"] == ("--max-model-len=512", *parallelism, "--dtype=half")
    else:
        assert (told["max_model_len"], told["threads"], told["arguments"]) == (512, 2, ())


def test_an_engine_may_finish_its_longest_answer_before_it_is_killed(observe: Any) -> None:
    seen = observe(traffic={"maxStream": "10m"})
    [deployment] = [each for each in manifests(seen, plan_alone(seen)) if each["kind"] == "Deployment"]

    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 600
