"""What sets the engine types apart, as one table: how each is started, probed and spoken to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holdfast.api.llmservice import LLMServiceSpec
from holdfast.api.names import ENGINE_PORT
from holdfast.api.route import EngineProtocol

MODEL_ROOT = "/models"
"""Where a volume claim with models is mounted in an engine's container."""
MODEL_CACHE = "/models-cache"
"""Where an engine that fetches its model itself keeps it."""


@dataclass(frozen=True)
class EngineType:
    """One kind of engine server."""

    arguments: Callable[[LLMServiceSpec], list[str]]
    """The container's arguments for a spec, before the user's own."""
    command: tuple[str, ...] | None
    """What to run in the container; None where the image knows."""
    sources: tuple[str, ...]
    """URL schemes that it can load a model from."""
    protocol: EngineProtocol
    on_gpu: bool
    live_path: str
    """Path that answers 200 while the process can make progress; it must not depend on load."""
    ready_path: str = "/health"
    """Path that answers 200 exactly while requests are taken."""
    drains_itself: bool = False
    """Whether it refuses new requests and finishes those it has when it is told to stop."""
    fetches: tuple[str, ...] = ()
    """Those of `sources` that it fetches into MODEL_CACHE, going on where a restart broke off."""
    verifies: bool = False
    """Whether it compares the model with a digest before loading."""
    root: bool = False
    """Whether its official image runs as root."""


def split_source(source: str) -> tuple[str, str]:
    """`pvc://claim/dir/model.gguf` → `("pvc", "claim/dir/model.gguf")`."""
    scheme, _, rest = source.partition("://")
    return scheme, rest


def model_path(source: str) -> str:
    """Where the engine finds the model: a path in its container, or a name on a hub."""
    scheme, rest = split_source(source)
    if scheme == "pvc":
        return f"{MODEL_ROOT}/{rest.partition('/')[2]}".rstrip("/")
    return rest


def _openvino(spec: LLMServiceSpec) -> list[str]:
    source = spec.model.source
    model = source if split_source(source)[0] in _FETCHED else model_path(source)
    arguments = ["serve", f"--model={model}", f"--served-name={spec.model.name}"]
    if spec.model.sha256:
        arguments.append(f"--sha256={spec.model.sha256}")
    if spec.model.max_model_len:
        arguments.append(f"--max-model-len={spec.model.max_model_len}")
    arguments += [f"--port={ENGINE_PORT}", f"--drain-seconds={spec.traffic.max_stream.total_seconds():g}"]
    return arguments


def _vllm(spec: LLMServiceSpec) -> list[str]:
    parallelism = spec.engine.parallelism
    arguments = [f"--model={model_path(spec.model.source)}", f"--served-model-name={spec.model.name}"]
    if spec.model.max_model_len:
        arguments.append(f"--max-model-len={spec.model.max_model_len}")
    arguments += [
        f"--tensor-parallel-size={parallelism.tensor}",
        f"--pipeline-parallel-size={parallelism.pipeline}",
        f"--port={ENGINE_PORT}",
    ]
    return arguments


_FETCHED = ("hf", "s3", "oci")

ENGINES = {
    "openvino": EngineType(
        arguments=_openvino,
        command=None,
        sources=("file", "pvc", *_FETCHED),
        fetches=_FETCHED,
        verifies=True,
        protocol=EngineProtocol.H2C,
        on_gpu=False,
        live_path="/livez",
        drains_itself=True,
    ),
    "vllm": EngineType(
        arguments=_vllm,
        command=("python3", "-m", "vllm.entrypoints.openai.api_server"),  # the images' own entry points have differed
        sources=("hf", "pvc", "file"),
        protocol=EngineProtocol.HTTP1,
        on_gpu=True,
        live_path="/health",
        root=True,
    ),
}
