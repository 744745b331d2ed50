"""The CPU engine's pipeline without server and shim, in a process of its own: `python -m … MODEL < ORDER`.

The order is JSON, the answer one JSON object on standard output. Two kinds of orders:

- `{"tokens": {"requests": N, "tokens": M}}`: N requests of M tokens at once; the seconds that they take, by the clock
  and of processor time.
- `{"batching": …}`: see `Batching`. Requests come at random moments, and are generated for in one of two ways.
  `continuous` lets each in when a place is free. `static` lets in as many as there are places only when all of the
  batch before are done; each sequence of a batch is generated for until its longest is complete, as a model's plain
  `generate` does.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast_engine.inference import Inference
from holdfast_engine.port import Sampling
from holdfast_engine.wire import WorkerConfig
from holdfast_engine.worker import warm_up

PROMPT = list(range(5, 37))


@dataclass(frozen=True)
class Batching:
    """One run. `lengths` are the answers' in tokens, `arrivals` seconds from the start; `places` the batch's size."""

    way: str
    lengths: list[int]
    arrivals: list[float]
    places: int


@dataclass
class Request:
    id: int
    length: int
    arrived: float


def greedy(tokens: int) -> Sampling:
    return Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)


def generate_at_once(model: Inference, requests: int, tokens: int) -> tuple[float, float]:
    """Seconds for all of them, by the clock and of processor time."""
    begun, used = time.perf_counter(), time.process_time()
    for id in range(1, requests + 1):
        model.add(id, PROMPT, tokens, greedy(tokens))
    while model.has_work():
        model.step()
    return time.perf_counter() - begun, time.process_time() - used


def run(model: Inference, plan: Batching) -> dict[str, Any]:
    """Latencies in seconds, in the order of arrival, and how long it all took."""
    coming = deque(Request(id, *pair) for id, pair in enumerate(zip(plan.lengths, plan.arrivals, strict=True), 1))
    waiting: deque[Request] = deque()
    running: dict[int, Request] = {}
    batch: list[Request] = []
    latencies = [0.0] * len(plan.lengths)
    begun = time.perf_counter()
    while coming or waiting or running:
        now = time.perf_counter() - begun
        while coming and coming[0].arrived <= now:
            waiting.append(coming.popleft())
        if plan.way == "continuous" or not running:
            batch = [waiting.popleft() for _ in range(min(plan.places - len(running), len(waiting)))]
            longest = max((each.length for each in batch), default=0)
            for each in batch:
                tokens = each.length if plan.way == "continuous" else longest
                model.add(each.id, PROMPT, tokens, greedy(tokens))
                running[each.id] = each
        if not running:
            time.sleep(max(0.0, coming[0].arrived - now))
            continue
        outputs = model.step()
        now = time.perf_counter() - begun
        for id, output in outputs.items():
            if output.finish_reason is not None:
                latencies[id - 1] = now - running.pop(id).arrived
    return {"seconds": time.perf_counter() - begun, "latencies": latencies}


def main() -> None:
    order = json.load(sys.stdin)
    model = Inference(WorkerConfig(sys.argv[1], max_num_seqs=order.get("places", 64)))
    warm_up(model)
    if (tokens := order.get("tokens")) is not None:
        generate_at_once(model, tokens["requests"], 8)
        print(json.dumps(generate_at_once(model, **tokens)))
    else:
        print(json.dumps([run(model, Batching(**plan)) for plan in order["batching"]]))


def skewed_lengths(count: int, seed: int) -> list[int]:
    """Output lengths in tokens as chats have them: most short, few long (log-normal, 2 to 400)."""
    drawn = np.random.default_rng(seed).lognormal(mean=2.3, sigma=1.3, size=count)
    return [int(each) for each in np.clip(drawn, 2, 400)]


if __name__ == "__main__":
    main()
