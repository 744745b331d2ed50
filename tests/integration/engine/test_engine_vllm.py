"""What only an engine in a child process can meet: how it starts, hangs, fills up and dies. With the stand-in."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.engine.engines import LONG, child_argument, child_port, start_vllm, wait_for

from holdfast_engine.app import PROBE_HEADER

pytestmark = pytest.mark.integration
Launch = Callable[..., Any]
Post = Callable[..., Any]
SLOW = ("--step-interval", "0.05", "--max-num-seqs", "2")
OUT_OF_MEMORY = """\
INFO 09-28 15:47:24 [gpu_worker.py:297] Available KV cache memory: 0.31 GiB
(EngineCore_DP0 pid=17374) ERROR 09-28 15:47:24 [core.py:718] EngineCore failed to start.
(EngineCore_DP0 pid=17374) ERROR 09-28 15:47:24 [core.py:718] Traceback (most recent call last):
(EngineCore_DP0 pid=17374) ERROR 09-28 15:47:24 [core.py:718] torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB.
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_DP0': 1}
"""


@pytest.fixture
def vllm(model: Path) -> Iterator[Launch]:
    """Start the shim with the stand-in: options of the shim, `arguments` of the stand-in."""
    started: list[Any] = []

    def start(*options: str, arguments: tuple[str, ...] = (), output: int | None = None) -> Any:
        started.append(start_vllm(model, *options, arguments=arguments, output=output))
        return started[-1]

    yield start
    for engine in started:
        engine.stop()


def seen(engine: Any) -> list[dict[str, Any]]:
    """The bodies that the child got."""
    answer = urllib.request.urlopen(f"http://127.0.0.1:{child_port(engine)}/seen").read()
    bodies: list[dict[str, Any]] = json.loads(answer)
    return bodies


def test_the_port_answers_while_the_child_starts(vllm: Launch) -> None:
    engine = vllm(arguments=("--startup", "2"))
    wait_for(lambda: engine.status() is not None, "the port")
    loading = engine.client.get("/health")
    assert (loading.status_code, loading.json()["reason"]) == (503, "loading")
    assert engine.status("/livez") == 200
    assert engine.ask().json()["error"]["code"] == "loading"
    engine.wait_ready()


def test_a_child_that_dies_while_it_starts_leaves_its_cause_its_output_and_its_code(
    vllm: Launch, tmp_path: Path
) -> None:
    last, message = tmp_path / "last", tmp_path / "termination-log"
    last.write_text(OUT_OF_MEMORY)
    message.touch()
    engine = vllm(
        *("--termination-log", str(message)),
        arguments=("--die-with", str(last), "--exit-code", "3"),
        output=subprocess.PIPE,
    )
    out, err = engine.process.communicate(timeout=60)
    assert engine.process.returncode == 3
    assert message.read_text() == "GpuOutOfMemory: torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB.\n"
    assert b"stand-in: starting\n" in out
    assert OUT_OF_MEMORY.encode() in err


def test_a_child_that_dies_at_work_fails_its_requests_and_leaves_its_cause(
    vllm: Launch, post_raw: Post, tmp_path: Path
) -> None:
    last, message = tmp_path / "last", tmp_path / "termination-log"
    last.write_text("RuntimeError: CUDA error: an illegal memory access was encountered\n")
    message.touch()
    arguments = (*SLOW, "--die-with", str(last), "--die-at", "die")
    engine = vllm("--termination-log", str(message), arguments=arguments).wait_ready()
    stream = post_raw(engine, max_tokens=LONG, stream=True)
    stream.read_until(b"data: ")
    assert engine.ask(prompt="die").status_code == 503
    stream.read_until(b'data: {"error":')
    assert engine.process.wait(60) == 1
    assert message.read_text() == "CudaError: RuntimeError: CUDA error: an illegal memory access was encountered\n"


def test_a_child_that_dies_of_its_first_generation_leaves_its_own_words(vllm: Launch, tmp_path: Path) -> None:
    last, message = tmp_path / "last", tmp_path / "termination-log"
    last.write_text(OUT_OF_MEMORY)
    message.touch()
    engine = vllm("--termination-log", str(message), arguments=("--die-with", str(last), "--die-at", "Hello"))
    assert engine.process.wait(60) == 1
    assert message.read_text().startswith("GpuOutOfMemory: ")


def test_a_child_that_lives_on_after_its_first_generation_failed_leaves_its_own_words_too(
    vllm: Launch, tmp_path: Path
) -> None:
    last, message = tmp_path / "last", tmp_path / "termination-log"
    last.write_text(
        "ERROR 11-21 22:41:55 [executor.py:315] Worker proc VllmWorker-0 died unexpectedly (exit code: -4).\n"
    )
    message.touch()
    arguments = ("--die-with", str(last), "--die-at", "Hello", "--linger")
    engine = vllm("--termination-log", str(message), arguments=arguments)
    assert engine.process.wait(60) == 1
    assert message.read_text() == "Killed: Worker proc VllmWorker-0 died unexpectedly (exit code: -4).\n"


def test_a_command_that_cannot_be_run_is_named(vllm: Launch, tmp_path: Path) -> None:
    message = tmp_path / "termination-log"
    message.touch()
    engine = vllm("--termination-log", str(message), "--engine-command", "/no/such/python")
    assert engine.process.wait(60) == 1
    assert message.read_text().startswith("EngineFailed: Error: /no/such/python cannot be run: No such file")


def test_an_engine_that_hangs_behind_a_living_server_is_not_live_until_a_token_comes(
    vllm: Launch, post_raw: Post
) -> None:
    engine = vllm("--progress-timeout", "2", arguments=SLOW).wait_ready()
    stream = post_raw(engine, max_tokens=LONG, stream=True)
    stream.read_until(b"data: ")
    os.kill(engine.worker_pid(), signal.SIGUSR1)
    stream.read_until(b'"code":"stalled"')
    assert engine.status("/livez") == 503
    for _ in range(20):
        assert engine.status("/livez") == 503
        time.sleep(0.1)
    os.kill(engine.worker_pid(), signal.SIGUSR2)
    wait_for(lambda: engine.status("/health") == 200, "the engine to be ready again")
    assert engine.ask(max_tokens=2).status_code == 200


def test_a_long_prefill_is_progress(vllm: Launch) -> None:
    engine = vllm("--progress-timeout", "2", arguments=(*SLOW, "--prefill", "80")).wait_ready()
    assert engine.ask(max_tokens=2).status_code == 200
    assert engine.status("/livez") == 200


def test_what_the_engine_compiles_at_first_use_is_used_before_it_is_ready(vllm: Launch) -> None:
    engine = vllm("--progress-timeout", "1", arguments=("--compile", "3")).wait_ready()
    assert engine.ask(max_tokens=2, temperature=0.7, top_p=0.5).status_code == 200
    assert engine.ask(max_tokens=2, logprobs=0).status_code == 200


def test_a_full_queue_leaves_the_engine_alive_and_a_probe_goes_before_it(vllm: Launch, post_raw: Post) -> None:
    engine = vllm("--progress-timeout", "1", arguments=SLOW).wait_ready()
    requests = [post_raw(engine, max_tokens=60) for _ in range(2)]
    engine.wait_load(running=2)
    requests += [post_raw(engine, max_tokens=LONG) for _ in range(50)]
    engine.wait_load(running=2, waiting=50)
    body = {"model": "tiny", "prompt": "ping", "max_tokens": 1}
    assert engine.client.post("/v1/completions", json=body, headers={PROBE_HEADER: "1"}).status_code == 200
    assert engine.waiting() >= 48
    assert (engine.status("/health"), engine.status("/livez")) == (200, 200)
    assert [asked.get("priority") for asked in seen(engine)].count(-1) == 1
    assert child_argument(engine, "--max-num-seqs") == "3"
    for request in requests:
        request.leave()
    engine.wait_load(running=0)


def test_priorities_are_left_out_where_the_user_chose_another_policy(vllm: Launch) -> None:
    engine = vllm(arguments=("--scheduling-policy", "fcfs")).wait_ready()
    body = {"model": "tiny", "prompt": "ping", "max_tokens": 1}
    assert engine.client.post("/v1/completions", json=body, headers={PROBE_HEADER: "1"}).status_code == 200
    assert all("priority" not in asked for asked in seen(engine))


def test_the_engine_is_told_what_the_client_chose_and_no_more(vllm: Launch) -> None:
    engine = vllm().wait_ready()
    plain = {"model": "tiny", "prompt": "Hi", "max_tokens": 1}
    assert engine.client.post("/v1/completions", json=plain).status_code == 200
    engine.ask(temperature=0.5, top_p=0.9, seed=3, max_tokens=1, stop="x")
    default, chosen = seen(engine)[-2:]
    assert default == {**plain, "stream": True, "return_token_ids": True}
    assert chosen == {**chosen, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ["x"]}


def state(engine: Any) -> str:
    return str(engine.client.get("/progress").json()["state"])


def test_an_idle_engine_falls_asleep_and_the_next_request_wakes_it(vllm: Launch) -> None:
    engine = vllm("--sleep-after", "0.3").wait_ready()
    for _ in range(2):
        wait_for(lambda: state(engine) == "asleep", "the engine to sleep")
        assert (engine.status("/health"), engine.status("/livez")) == (200, 200)
        assert engine.ask(max_tokens=3, ignore_eos=True).json()["usage"]["completion_tokens"] == 3


def test_an_engine_that_does_not_fall_asleep_ends_and_says_why(vllm: Launch, tmp_path: Path) -> None:
    message = tmp_path / "termination-log"
    message.touch()
    engine = vllm("--sleep-after", "0.3", "--termination-log", str(message), arguments=("--insomnia",))
    assert engine.process.wait(60) == 1
    assert message.read_text() == (
        "EngineFailed: It did not fall asleep: The engine answered 500: Sleep mode is not enabled.\n"
    )


def test_more_alternatives_than_the_engine_tells_are_refused(vllm: Launch) -> None:
    engine = vllm(arguments=("--max-logprobs", "1")).wait_ready()
    refused = engine.ask(logprobs=2)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "logprobs")
    assert engine.ask(logprobs=1).status_code == 200


def test_a_model_is_given_to_the_engine_once_it_has_its_digest(vllm: Launch, model: Path) -> None:
    right = hashlib.sha256(model.read_bytes()).hexdigest()
    engine = vllm("--model", str(model), "--sha256", right).wait_ready()
    assert child_argument(engine, "--model") == str(model)


def test_a_model_with_another_digest_is_not_given_to_the_engine(vllm: Launch, model: Path, tmp_path: Path) -> None:
    message = tmp_path / "termination-log"
    message.touch()
    options = ("--model", str(model), "--sha256", "0" * 64, "--termination-log", str(message))
    engine = vllm(*options, output=subprocess.PIPE)
    out, _ = engine.process.communicate(timeout=60)
    assert engine.process.returncode == 65
    assert message.read_text().startswith(f"ModelCorrupt: expected {'0' * 64}, found ")
    assert b"stand-in: starting" not in out


def test_a_digest_without_a_model_of_the_shims_is_refused(vllm: Launch) -> None:
    engine = vllm("--sha256", "0" * 64, arguments=("--model", "org/m"), output=subprocess.PIPE)
    _, err = engine.process.communicate(timeout=60)
    assert engine.process.returncode == 2
    assert b"--sha256 is compared with the model that --model names before --" in err


def test_an_argument_that_is_the_shims_own_is_refused(vllm: Launch) -> None:
    engine = vllm(arguments=("--api-key", "x"), output=subprocess.PIPE)
    _, err = engine.process.communicate(timeout=60)
    assert engine.process.returncode == 2
    assert b"--api-key is set by the shim" in err
