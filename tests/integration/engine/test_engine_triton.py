"""What is Triton's own behind the shim, with the real server (`make test-triton`)."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tests.integration.engine.conftest import EngineProcess
from tests.integration.engine.engines import TRITON, TRITON_MODELS, wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not TRITON, reason="needs Triton's server: make test-triton"),
]
Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start Triton behind the shim with a repository; its last words are in `tmp_path / "log"`."""
    started: list[EngineProcess] = []
    (tmp_path / "log").touch()

    def start(repository: Path, *options: str) -> EngineProcess:
        triton = ("--engine", "triton", "--engine-command", str(TRITON), "--termination-log", str(tmp_path / "log"))
        started.append(EngineProcess(repository, *triton, *options))
        return started[-1]

    yield start
    for engine in started:
        engine.stop()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the repository whose model tells token ids, to be changed by the test."""
    return shutil.copytree(Path(str(TRITON_MODELS)) / "ids", tmp_path / "models")


def model_process(engine: EngineProcess) -> int:
    """The process that runs the Python model, a child of Triton's server."""
    server = engine.worker_pid()
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    (pid,) = map(int, children)
    return pid


def test_tritons_client_talks_through_the_shim_to_the_model_behind(repository: Path, serve: Serve) -> None:
    engine = serve(repository).wait_ready()
    prompt = triton_grpc.InferInput("text_input", [1], "BYTES")
    prompt.set_data_from_numpy(np.array([b"Once upon"], dtype=np.object_))
    wanted = [triton_grpc.InferRequestedOutput(name) for name in ("text_output", "output_ids", "prompt_ids")]
    parameters = {"temperature": 0, "max_tokens": 12}
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{engine.grpc_port}") as client:
        result = client.infer("tiny", [prompt], outputs=wanted, parameters=parameters)
    same = engine.ask(max_tokens=12, return_token_ids=True).json()["choices"][0]
    assert result.as_numpy("text_output").tolist() == [("Once upon" + same["text"]).encode()]
    assert result.as_numpy("output_ids").tolist() == same["token_ids"]
    assert result.as_numpy("prompt_ids").tolist() == same["prompt_token_ids"] == list(b"Once upon")


def test_outputs_of_token_ids_are_refused_where_the_model_tells_none(serve: Serve) -> None:
    engine = serve(Path(str(TRITON_MODELS)) / "text").wait_ready()
    asked = {"text_input": "Once upon", "max_tokens": 4, "temperature": 0, "return_num_output_tokens": True}
    refused = engine.client.post("/v2/models/tiny/generate", json={**asked, "return_output_ids": True})
    assert (refused.status_code, refused.json()) == (400, {"error": "This engine tells no token ids."})
    answer = engine.client.post("/v2/models/tiny/generate", json=asked).json()
    assert (len(answer["text_output"]), answer["num_output_tokens"]) == (len("Once upon") + 4, 4)


def test_a_model_whose_process_died_ends_the_engine_although_triton_calls_it_ready(
    repository: Path, serve: Serve, tmp_path: Path
) -> None:
    engine = serve(repository).wait_ready()
    os.kill(model_process(engine), signal.SIGKILL)

    def asked_in_vain() -> bool:
        return engine.process.poll() is not None or (engine.status() is not None and engine.ask().status_code == 503)

    wait_for(asked_in_vain, "the model's absence to be noticed")
    assert engine.process.wait(60) == 1
    assert (tmp_path / "log").read_text().startswith("EngineFailed: The model's process has ended. ")


def test_a_model_that_does_not_load_ends_the_engine_with_its_words(
    repository: Path, serve: Serve, tmp_path: Path
) -> None:
    (repository / "tiny" / "1" / "model.py").write_text('raise RuntimeError("CUDA error: out of memory")\n')
    assert serve(repository).process.wait(60) == 1
    said = "failed to load 'tiny' version 1: Internal: RuntimeError: CUDA error: out of memory"
    assert (tmp_path / "log").read_text() == f"GpuOutOfMemory: {said}\n"


def test_a_model_that_cannot_be_asked_for_text_ends_the_engine_and_is_described(
    repository: Path, serve: Serve, tmp_path: Path
) -> None:
    config = repository / "tiny" / "config.pbtxt"
    config.write_text(config.read_text().replace('"stream"', '"other"'))
    assert serve(repository).process.wait(60) == 1
    said = "The model tiny has no input `stream`, as Triton's vLLM backend has."
    assert (tmp_path / "log").read_text() == f"EngineFailed: {said}\n"


def test_of_several_models_one_must_be_named(repository: Path, serve: Serve, tmp_path: Path) -> None:
    shutil.copytree(repository / "tiny", repository / "other")
    assert serve(repository).process.wait(60) == 1
    said = "Triton serves other, tiny: name one with --triton-model."
    assert (tmp_path / "log").read_text() == f"EngineFailed: {said}\n"
    named = serve(repository, "--triton-model", "other").wait_ready()
    assert named.ask(max_tokens=3).json()["usage"]["completion_tokens"] == 3


def test_a_repository_that_is_not_there_is_a_usage_error(serve: Serve, tmp_path: Path) -> None:
    assert serve(tmp_path / "absent").process.wait(60) == 2


def test_options_of_other_engines_are_usage_errors(repository: Path, serve: Serve) -> None:
    for options in (("--threads", "2"), ("--sleep-after", "5"), ("--", "--grpc-port=5")):
        assert serve(repository, *options).process.wait(60) == 2
