"""The port between the shim and what generates: five verbs out, eight events back.

An engine is told of tasks and reports what becomes of them; it decides nothing about health, admission or answers. It
lives on the shim's event loop: no method blocks, and events are reported from that loop. `holdfast_engine/engines/`
holds one file per engine; `tests/integration/engine/test_engine_contract.py` says what each must keep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from holdfast_engine.causes import Cause
from holdfast_engine.errors import EngineError
from holdfast_engine.vocabulary import Vocabulary


@dataclass(frozen=True)
class Sampling:
    """How one request is generated; `max_tokens` None = as many as the context length leaves."""

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    ignore_eos: bool = False
    logprobs: int | None = None
    """Whether each token's log probability is told, with so many alternatives; None = not."""


@dataclass(frozen=True)
class Task:
    """A request as an engine gets it. Exactly one of `text`, `token_ids` and `messages` is given."""

    id: int
    sampling: Sampling
    text: str | None = None
    token_ids: list[int] | None = None
    messages: list[dict[str, str]] | None = None
    stops: tuple[str, ...] = ()
    """The shim cuts the answer at these; an engine that knows them, too, may end there by itself."""
    chosen: frozenset[str] = frozenset()
    """Fields of `sampling` that the client named; an engine may have defaults of its own for the others."""
    probe: bool = False
    """Whether an observer asks: it goes before everybody, beyond the places of users' tasks."""
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    """What makes an engine's own spans children of the request's, where it has any."""


@dataclass(frozen=True)
class Loaded:
    """The model is in memory. `vocabulary` None = the engine gives text beside the token ids."""

    max_model_len: int | None
    vocabulary: Vocabulary | None = None
    tells_ids: bool = True
    """Whether token ids are told at all; an engine that gives text alone counts its tokens."""
    top_logprobs: int | None = None
    """Alternatives that it can tell the log probabilities of, at most; None = not even the chosen token's."""


@dataclass(frozen=True)
class Ready:
    """A real generation succeeded."""


@dataclass(frozen=True)
class Accepted:
    """The engine works on the task."""

    id: int
    prompt_ids: list[int]
    count: int | None = None
    """The prompt's tokens, where their ids are not told."""

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) if self.count is None else self.count


@dataclass(frozen=True)
class Refused:
    """The task ended without an answer, or without the rest of one. No sign of progress."""

    id: int
    error: EngineError


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural logarithms of probabilities: a generated token's, and those of the likeliest in its place."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()
    utf8: bytes | None = None
    """The token's own bytes, which need not be whole characters; None = those of `token`."""


@dataclass(frozen=True)
class Output:
    """What is new of one task; `reason` ("stop" or "length") comes with the last. `text` as `Loaded` says."""

    id: int
    token_ids: list[int]
    reason: str | None = None
    text: str | None = None
    logprobs: list[TokenLogprobs] | None = None
    """One for each of `token_ids`, where they were asked for."""
    count: int | None = None
    """The new tokens, where their ids are not told."""

    @property
    def tokens(self) -> int:
        return len(self.token_ids) if self.count is None else self.count


@dataclass(frozen=True)
class Step:
    """The engine made progress; with what came of it."""

    outputs: list[Output] = field(default_factory=list)
    cache_usage: float | None = None
    """Fraction of the KV cache in use; None = as before."""
    prefix_cache: tuple[int, int] | None = None
    """Tokens of prompts that were looked up in the prefix cache since the start, and those found; None = as before."""


@dataclass(frozen=True)
class Cancelled:
    """The engine no longer works on a task that was cancelled. No sign of progress."""

    id: int


@dataclass(frozen=True)
class Resting:
    """The engine fell asleep, or awoke and generates again; as it was told with `rest`."""

    asleep: bool


@dataclass(frozen=True)
class Failed:
    """The engine is over; `code` is what the container exits with."""

    cause: Cause
    code: int = 1


Event = Loaded | Ready | Accepted | Refused | Step | Cancelled | Resting | Failed


class Engine(Protocol):
    """Something that generates."""

    async def start(self, report: Callable[[Event], None]) -> None:
        """Start; returns before the model is loaded. Everything that happens from now on is given to `report`."""

    def submit(self, task: Task) -> None:
        """Work on `task`: Accepted and outputs up to a reason, or Refused, will be reported."""

    def cancel(self, id: int) -> None:
        """Stop working on a task: Cancelled will be reported, unless the task has ended before."""

    def rest(self, asleep: bool) -> None:
        """Fall asleep: keep the model, give up the memory that only generating needs; or awake. Resting will be
        reported. Told only while there are no tasks, and never twice the same."""

    async def stop(self, at_once: bool = False) -> None:
        """End the engine and its processes: in its own manner, by force when that takes too long or `at_once`."""
