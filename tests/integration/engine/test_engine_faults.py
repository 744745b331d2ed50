"""Loading, draining, and a pipeline process that dies or hangs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.integration
Launch = Callable[..., Any]
Post = Callable[..., Any]
LONG = 4000
PACED = ("--step-interval", "0.05")


def wait_status(engine: Any, path: str, status: int) -> dict[str, Any]:
    """The JSON of the first answer with `status`."""
    for _ in range(3000):
        answer = engine.client.get(path)
        if answer.status_code == status:
            return dict(answer.json())
        time.sleep(0.02)
    return pytest.fail(f"{path} did not answer {status}")


def wait_gone(pid: int) -> None:
    for _ in range(3000):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} still runs")


def test_the_port_answers_while_loading_and_a_broken_model_ends_the_process(launch: Launch, tmp_path: Path) -> None:
    pipe = tmp_path / "model.gguf"
    os.mkfifo(pipe)  # opening it blocks: the model stays "loading" until the test opens the other end
    engine = launch(model=pipe)
    loading = None
    while loading is None:
        assert engine.process.poll() is None
        if engine.status() is not None:
            loading = engine.client.get("/health")
    assert (loading.status_code, loading.json()["reason"]) == (503, "loading")
    assert engine.status("/livez") == 200
    refused = engine.ask()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "loading")
    pipe.open("wb").close()
    assert engine.process.wait(60) == 1


def test_sigterm_lets_streams_finish_and_refuses_new_requests(launch: Launch, post_raw: Post) -> None:
    engine = launch(*PACED).wait_ready()
    whole = post_raw(engine, http2=True, max_tokens=100)
    stream = post_raw(engine, max_tokens=100, stream=True)
    last = post_raw(engine, max_tokens=LONG)
    stream.read_until(b"data: ")
    engine.process.send_signal(signal.SIGTERM)
    assert wait_status(engine, "/health", 503)["reason"] == "draining"
    refused = engine.ask()
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["error"]["code"] == "draining"
    assert engine.status("/livez") == 200
    stream.read_until(b"data: [DONE]")
    whole.read_until(b'"finish_reason":"length"')
    last.leave()
    assert engine.process.wait(60) == 0


def test_a_drain_ends_at_its_limit(launch: Launch, post_raw: Post) -> None:
    engine = launch(*PACED, "--drain-seconds", "0.2").wait_ready()
    stream = post_raw(engine, max_tokens=LONG, stream=True)
    stream.read_until(b"data: ")
    engine.process.send_signal(signal.SIGTERM)
    stream.read_until(b'"code":"draining"')
    assert engine.process.wait(60) == 0


def test_a_second_sigterm_ends_at_once(launch: Launch, post_raw: Post) -> None:
    engine = launch(*PACED).wait_ready()
    post_raw(engine, max_tokens=LONG)
    engine.wait_load(running=1)
    worker = engine.worker_pid()
    engine.process.send_signal(signal.SIGTERM)
    wait_status(engine, "/health", 503)
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(60) == 128 + signal.SIGTERM
    wait_gone(worker)


def test_the_pipeline_process_does_not_outlive_its_server(launch: Launch) -> None:
    engine = launch().wait_ready()
    worker = engine.worker_pid()
    engine.process.kill()
    wait_gone(worker)


def test_a_dead_generation_loop_sends_requests_elsewhere_and_ends_the_process(launch: Launch, post_raw: Post) -> None:
    engine = launch(*PACED).wait_ready()
    stream = post_raw(engine, max_tokens=LONG, stream=True)
    whole = post_raw(engine, max_tokens=LONG)
    stream.read_until(b"data: ")
    engine.wait_load(running=2)
    os.kill(engine.worker_pid(), signal.SIGKILL)
    stream.read_until(b'data: {"error":')
    whole.read_until(b"HTTP/1.1 503")
    assert engine.process.wait(60) == 1


def test_a_hanging_generation_loop_is_noticed_and_forgiven_when_it_goes_on(launch: Launch, post_raw: Post) -> None:
    engine = launch(*PACED, "--progress-timeout", "1").wait_ready()
    stream = post_raw(engine, http2=True, max_tokens=LONG, stream=True)
    whole = post_raw(engine, http2=True, max_tokens=LONG)
    stream.read_until(b"data: ")
    engine.wait_load(running=2)
    os.kill(engine.worker_pid(), signal.SIGSTOP)
    whole.read_until(b'"code":"stalled"')
    stream.read_until(b'data: {"error":')
    assert wait_status(engine, "/livez", 503)["reason"] == "stalled"
    assert engine.status("/health") == 503
    os.kill(engine.worker_pid(), signal.SIGCONT)
    wait_status(engine, "/health", 200)
    engine.wait_load(running=0)
    assert engine.ask(max_tokens=2).status_code == 200


def test_a_port_that_is_taken_is_not_shared(launch: Launch) -> None:
    engine = launch().wait_ready()
    other = launch("--port", str(engine.port))
    assert other.process.wait(60) == 1
    assert isinstance(engine.client.get("/health"), httpx.Response)
