"""What sets the engine types apart, as one table. One shim stands in front of all of them (`holdfast_engine`), so that
they get their models, are probed, drained and spoken to alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.api.llmservice import LLMServiceSpec
from holdfast.api.names import ENGINE_PORT

COMMAND = ("python3", "-m", "holdfast_engine")
"""What runs in the container, whatever the image's entry point is: an image without the shim says so at once."""
LIVE_PATH = "/livez"
"""Answers 200 while the process can make progress; does not depend on load."""
READY_PATH = "/health"
"""Answers 200 exactly while requests are taken."""
MODEL_ROOT = "/models"
"""Where a volume claim with models is mounted in an engine's container."""
FETCHED = ("hf", "s3", "oci")
"""URL schemes of models that the shim fetches, going on where a restart broke off."""
SOURCES = ("file", "pvc", *FETCHED)
MODEL_CACHE = "/models-cache"
"""Where it keeps them."""


@dataclass(frozen=True)
class EngineType:
    """One kind of engine."""

    arguments: Callable[[LLMServiceSpec], list[str]]
    """The container's arguments for a spec, before the user's own."""
    on_gpu: bool


def split_source(source: str) -> tuple[str, str]:
    """`pvc://claim/dir/model.gguf` → `("pvc", "claim/dir/model.gguf")`."""
    scheme, _, rest = source.partition("://")
    return scheme, rest


def model_path(source: str) -> str:
    """What the shim is told of a source: a path in its container, or the source itself where it fetches it."""
    scheme, rest = split_source(source)
    if scheme in FETCHED:
        return source
    return f"{MODEL_ROOT}/{rest.partition('/')[2]}".rstrip("/") if scheme == "pvc" else rest


def _shim(engine: str, spec: LLMServiceSpec) -> list[str]:
    """What the shim is told in front of every engine."""
    arguments = ["serve", f"--engine={engine}", f"--model={model_path(spec.model.source)}"]
    if spec.model.sha256:
        arguments.append(f"--sha256={spec.model.sha256}")
    drain = f"--drain-seconds={spec.traffic.max_stream.total_seconds():g}"
    return [*arguments, f"--served-name={spec.model.name}", f"--port={ENGINE_PORT}", drain]


def _context_length(spec: LLMServiceSpec) -> list[str]:
    return [f"--max-model-len={spec.model.max_model_len}"] if spec.model.max_model_len else []


def _openvino(spec: LLMServiceSpec) -> list[str]:
    return [*_shim("openvino", spec), *_context_length(spec)]


def _vllm(spec: LLMServiceSpec) -> list[str]:
    parallelism = spec.engine.parallelism
    own = [f"--tensor-parallel-size={parallelism.tensor}", f"--pipeline-parallel-size={parallelism.pipeline}"]
    return [*_shim("vllm", spec), "--", *_context_length(spec), *own]


def _triton(spec: LLMServiceSpec) -> list[str]:
    return [*_shim("triton", spec), "--"]


ENGINES = {
    "openvino": EngineType(_openvino, on_gpu=False),
    "triton": EngineType(_triton, on_gpu=True),
    "vllm": EngineType(_vllm, on_gpu=True),
}
