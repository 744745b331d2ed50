"""Slows the real vLLM down, for tests that must meet it at work: `--logits-processors vllm_pace:Pace`.

Runs inside vLLM's worker process: each of its steps takes PACE_SECONDS at least.
"""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.sample.logits_processor import LogitsProcessor

PACE_SECONDS = 0.03


class Pace(LogitsProcessor):
    def __init__(self, *_: Any) -> None:
        pass

    def apply(self, logits: Any) -> Any:
        time.sleep(PACE_SECONDS)
        return logits

    def is_argmax_invariant(self) -> bool:
        """False: those that are invariant are left out where an answer is greedy."""
        return False

    def update_state(self, _: Any) -> None:
        pass
