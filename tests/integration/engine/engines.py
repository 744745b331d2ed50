"""How each engine that the contract test knows is started behind the shim."""

from __future__ import annotations

import os
import re
import shlex
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.engine.conftest import LONG, EngineProcess, wait_until

__all__ = ["KINDS", "LONG", "EngineKind", "child_argument", "child_port", "start_vllm", "wait_for", "wait_gone"]
wait_for = wait_until
STAND_IN = shlex.join([sys.executable, str(Path(__file__).with_name("vllm_stand_in.py"))])
REAL_ARGUMENTS = ("--max-model-len", "8192", "--max-num-seqs", "8", "--dtype", "float32", "--enforce-eager")
REAL_ARGUMENTS += ("--logits-processors", "vllm_pace:Pace")
PACE = ("--step-interval", "0.03")
TRITON, TRITON_MODELS = os.environ.get("HOLDFAST_TRITON_SERVER"), os.environ.get("HOLDFAST_TRITON_MODELS")
REAL_PYTHON, REAL_MODEL = os.environ.get("HOLDFAST_VLLM_PYTHON"), os.environ.get("HOLDFAST_VLLM_MODEL")


def start_openvino(model: Path, *options: str, paced: bool = False) -> EngineProcess:
    return EngineProcess(model, *options, *(PACE if paced else ()))


def start_vllm(
    _: Path, *options: str, paced: bool = False, arguments: tuple[str, ...] = (), output: int | None = None
) -> EngineProcess:
    """vLLM's side of the port, with the stand-in, which gets `arguments`."""
    pace = PACE if paced else ()
    shim = ("--engine", "vllm", "--engine-command", STAND_IN, *options)
    return EngineProcess(None, *shim, "--", *pace, *arguments, output=output)


def start_real_vllm(_: Path, *options: str, paced: bool = False) -> EngineProcess:
    """Always paced: a tiny model's answer would be complete before a client that left is noticed. With a shim that is
    patient: on a busy machine no step may complete for a while."""
    command = f"env PYTHONPATH={Path(__file__).parent} {REAL_PYTHON} -m vllm.entrypoints.openai.api_server"
    shim = ("--engine", "vllm", "--engine-command", command, "--model", str(REAL_MODEL))
    shim = (*shim, "--progress-timeout", "60", *options)
    return EngineProcess(None, *shim, "--", *REAL_ARGUMENTS)


def start_triton(kind: str) -> Callable[..., EngineProcess]:
    """The real Triton, with the repository `kind` of tests/integration/engine/triton_setup.py."""

    def start(_: Path, *options: str, paced: bool = False) -> EngineProcess:
        repository = Path(str(TRITON_MODELS)) / kind
        return EngineProcess(repository, "--engine", "triton", "--engine-command", str(TRITON), *options)

    return start


@dataclass(frozen=True)
class EngineKind:
    name: str
    start: Callable[..., EngineProcess]
    metrics: tuple[str, str] | None = None
    """The option that has the port of the process's own metrics, and a pattern of its numbers of requests there."""
    alternatives: int | None = None
    """Of each token, whose log probabilities it can tell, not more than two; None = it tells none."""
    tells_ids: bool = True
    chats: bool = True

    def works_on(self, engine: EngineProcess) -> int:
        """Requests that the engine's own process counts, beside what the shim says."""
        if self.metrics is None:
            return 0
        option, pattern = self.metrics
        page = urllib.request.urlopen(f"http://127.0.0.1:{child_port(engine, option)}/metrics").read().decode()
        return int(sum(float(value) for value in re.findall(rf"^{pattern}\{{.*\}} (\S+)$", page, re.M)))


def child_port(engine: Any, option: str = "--port") -> int:
    return int(child_argument(engine, option))


def child_argument(engine: Any, name: str) -> str:
    """The value of the last argument of that name, which counts."""
    arguments = Path(f"/proc/{engine.worker_pid()}/cmdline").read_bytes().decode().split("\0")[::-1]
    return arguments[arguments.index(name) - 1]


def wait_gone(pid: int) -> None:
    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_until(gone, f"process {pid} to end")


VLLM_METRICS = ("--port", "vllm:num_requests_(?:running|waiting)")
VLLM = EngineKind("vllm", start_real_vllm if REAL_PYTHON else start_vllm, VLLM_METRICS, alternatives=2)
TRITON_METRICS = ("--metrics-port", "tiny_requests")
TRITONS = [
    EngineKind("triton-ids", start_triton("ids"), TRITON_METRICS, chats=False),
    EngineKind("triton-text", start_triton("text"), TRITON_METRICS, tells_ids=False, chats=False),
]
OPENVINO = EngineKind("openvino", start_openvino, alternatives=0)
KINDS = TRITONS if TRITON else [VLLM] if REAL_PYTHON else [OPENVINO, VLLM]
