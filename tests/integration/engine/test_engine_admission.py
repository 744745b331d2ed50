"""Too many requests at a real engine: who waits, who is turned away, and that the engine is never blamed for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.integration.engine.conftest import LONG, wait_until

pytestmark = pytest.mark.integration
Launch = Callable[..., Any]
Post = Callable[..., Any]
PACE = ("--step-interval", "0.03")


def completion(engine: Any, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    body = {"model": "tiny", "prompt": "Once upon", "temperature": 0, "max_tokens": 2, **fields}
    return engine.client.post("/v1/completions", json=body, headers=headers)


def filled(launch: Launch, post_raw: Post, *options: str, waiting: int = 0) -> tuple[Any, Any]:
    """An engine with one place, taken by the second value, and so many that wait."""
    engine = launch("--max-num-seqs", "1", *PACE, *options).wait_ready()
    first = post_raw(engine, max_tokens=LONG, ignore_eos=True)
    engine.wait_load(running=1)
    for n in range(waiting):
        post_raw(engine, max_tokens=LONG, ignore_eos=True)
        engine.wait_load(running=1, waiting=n + 1)
    return engine, first


def test_beyond_the_queue_a_request_is_told_when_to_come_again(launch: Launch, post_raw: Post) -> None:
    engine, _ = filled(launch, post_raw, "--max-queue", "2", waiting=2)
    refused = completion(engine)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert int(refused.headers["retry-after"]) > 0
    assert engine.metric("holdfast:requests_refused_total", reason="queue_full", priority="normal") == 1


def test_a_request_of_a_higher_class_takes_the_place_of_one_that_waits(launch: Launch, post_raw: Post) -> None:
    engine, first = filled(launch, post_raw, "--max-queue", "1")
    low = post_raw(engine, max_tokens=2, priority="low")
    engine.wait_load(running=1, waiting=1)
    with ThreadPoolExecutor(1) as pool:
        high = pool.submit(completion, engine, {"x-holdfast-priority": "high"})
        low.read_until(b"HTTP/1.1 429")
        first.leave()
        assert high.result().status_code == 200


def test_a_high_request_overtakes_those_that_wait(launch: Launch, post_raw: Post) -> None:
    engine, first = filled(launch, post_raw)
    order: list[str] = []
    lock = threading.Lock()

    def ask(priority: str) -> None:
        assert completion(engine, priority=priority, max_tokens=10).status_code == 200
        with lock:
            order.append(priority)

    with ThreadPoolExecutor(3) as pool:
        for waiting, priority in enumerate(["low", "normal", "high"], 1):
            pool.submit(ask, priority)
            engine.wait_load(running=1, waiting=waiting)
        first.leave()
    assert order == ["high", "normal", "low"]


def test_a_request_that_comes_too_late_is_never_started(launch: Launch, post_raw: Post) -> None:
    engine, _ = filled(launch, post_raw)
    late = completion(engine, {"x-holdfast-timeout": "0.2"})
    assert (late.status_code, late.json()["error"]["code"]) == (408, "deadline_exceeded")
    engine.wait_load(running=1)
    assert engine.metric("holdfast:requests_refused_total", reason="deadline", priority="normal") == 1


@pytest.mark.parametrize(
    ("headers", "fields", "param"),
    [
        ({"x-holdfast-priority": "urgent"}, {}, "x-holdfast-priority"),
        ({"x-holdfast-timeout": "soon"}, {}, "x-holdfast-timeout"),
        ({}, {"priority": 3}, "priority"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(
    engine: Any, headers: dict[str, str], fields: dict[str, Any], param: str
) -> None:
    refused = completion(engine, headers, **fields)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_prompts_and_answers_are_bounded(launch: Launch) -> None:
    engine = launch("--max-prompt-tokens", "40", "--max-output-tokens", "5").wait_ready()
    long_text = completion(engine, prompt="word " * 50)
    long_ids = completion(engine, prompt=[5] * 41)
    long_answer = completion(engine, max_tokens=6)
    codes = [each.json()["error"]["code"] for each in (long_text, long_ids, long_answer)]
    assert codes == ["prompt_too_long", "prompt_too_long", "output_too_long"]
    assert {each.status_code for each in (long_text, long_ids, long_answer)} == {400}
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "ignore_eos": True}
    bounded = engine.client.post("/v1/chat/completions", json=chat)
    assert bounded.json()["usage"]["completion_tokens"] == 5
    engine.wait_load(running=0)


def test_an_engine_that_is_full_all_the_time_stays_alive_ready_and_open_to_observers(
    launch: Launch, post_raw: Post
) -> None:
    """Twice as long as a hang would take to be noticed, with the queue full and requests being turned away."""
    engine, _ = filled(launch, post_raw, "--max-queue", "2", "--progress-timeout", "1.5", waiting=2)
    begun, refused, observed = time.monotonic(), 0, 0
    while time.monotonic() - begun < 3.5:
        refused += completion(engine).status_code == 429
        observed += completion(engine, {"x-holdfast-probe": "1"}, max_tokens=1).status_code == 200
        assert engine.status("/livez") == 200
        assert engine.status("/health") == 200
    assert refused > 0
    assert observed == refused
    progress = engine.client.get("/progress").json()
    assert (progress["state"], progress["requests_waiting"]) == ("awake", 2)
    assert progress["seconds_since_last_token"] < 1.5


def test_progress_counts_what_was_generated(launch: Launch) -> None:
    engine = launch().wait_ready()
    fresh = engine.client.get("/progress").json()
    assert (fresh["tokens_generated"], fresh["seconds_since_last_token"]) == (0, None)
    completion(engine, max_tokens=7, ignore_eos=True)
    progress = engine.client.get("/progress").json()
    assert progress["tokens_generated"] == 7
    assert progress["requests_in_flight"] == 0


def test_an_idle_engine_falls_asleep_gives_up_memory_and_answers_the_next_request(launch: Launch) -> None:
    engine = launch("--sleep-after", "0.5").wait_ready()
    awake = completion(engine, max_tokens=20).json()["choices"]
    wait_until(lambda: engine.client.get("/progress").json()["state"] == "asleep", "the engine to sleep")
    assert (engine.status("/health"), engine.status("/livez")) == (200, 200)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: completion(engine, max_tokens=20).json()["choices"], range(4)))
    assert answers == [awake] * 4
    wait_until(lambda: engine.client.get("/progress").json()["state"] == "asleep", "the engine to sleep again")
