"""What a stream's client got, compared with the undisturbed answer to the same request. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher


@dataclass
class Received:
    """One stream as its client saw it. Times in seconds on one clock."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    reason: str | None = None
    completion_tokens: int | None = None
    """As `usage` said at the end."""
    done: bool = False
    """Whether [DONE] came."""
    error: str = ""
    """An error event, or how the connection ended."""
    ids: set[str] = field(default_factory=set)
    """Every `id` that its chunks had."""
    regions: list[str] = field(default_factory=list)
    """Those that generated it, one after the other."""
    token_times: list[float] = field(default_factory=list)
    """When each event with tokens came."""
    resumed_after: list[int] = field(default_factory=list)
    """After how many of those the client was told that the stream goes on elsewhere."""

    def pauses(self) -> list[tuple[float, float]]:
        """For each resumption between two tokens when it began, and how many seconds no token came."""
        times = self.token_times
        return [(times[at - 1], times[at] - times[at - 1]) for at in self.resumed_after if 0 < at < len(times)]


@dataclass(frozen=True)
class Difference:
    """What is wrong with a stream; all zero and empty when it is exact."""

    lost: int = 0
    """Tokens of the undisturbed answer that did not come."""
    doubled: int = 0
    """Tokens that came and are not in the undisturbed answer at their place."""
    wrong: str = ""
    """What else is wrong, in words."""

    @property
    def exact(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


def compare(got: Received, undisturbed: Received) -> Difference:
    """Text, token ids, end and usage of a stream beside those of the undisturbed one."""
    lost, doubled = count(got.token_ids, undisturbed.token_ids)
    return Difference(lost, doubled, got.error or _wrong(got, undisturbed))


def count(got: Sequence[int], wanted: Sequence[int]) -> tuple[int, int]:
    """Tokens that are missing, and those that are too many, by what both share: their ends, long parts between."""
    start = _common(got, wanted)
    got, wanted = got[start:], wanted[start:]
    if end := _common(got[::-1], wanted[::-1]):
        got, wanted = got[:-end], wanted[:-end]
    lost = doubled = 0
    for what, begin, end, other_begin, other_end in SequenceMatcher(None, wanted, got, autojunk=False).get_opcodes():
        if what != "equal":
            lost += end - begin
            doubled += other_end - other_begin
    return lost, doubled


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _wrong(got: Received, undisturbed: Received) -> str:
    if not got.done:
        return "ended without [DONE]"
    if got.reason != undisturbed.reason:
        return f"finish reason {got.reason} instead of {undisturbed.reason}"
    if got.completion_tokens != undisturbed.completion_tokens:
        return f"usage says {got.completion_tokens} tokens instead of {undisturbed.completion_tokens}"
    if len(got.ids) != 1:
        return f"{len(got.ids)} different ids"
    if got.text != undisturbed.text:
        return "another text"
    return ""
