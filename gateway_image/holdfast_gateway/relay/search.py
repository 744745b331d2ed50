"""The search for an engine that goes on with a stream: who is asked, with what pauses, and when it is given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast_gateway.relay.failure import UpstreamFailure
from holdfast_gateway.relay.regions import next_region

PAUSE_FIRST, PAUSE_MOST = 0.2, 2.0
"""Seconds before a region that has just failed is asked again: doubled each time."""


@dataclass(frozen=True)
class Patience:
    """How long a stream waits, in seconds."""

    first_token: float = 20.0
    """For the first token of an engine that continues a stream, which reads the prompt anew, where there is another."""
    search: float = 120.0
    """For an engine that continues it, from the loss of the one before."""
    keep_alive: float = 10.0
    """Before a client that gets nothing is sent a comment."""


class GivenUp(Exception):
    """The stream cannot be completed; `code` as in OpenAI's errors."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Loss:
    """An engine was lost, and none has added a token since. Times of the monotonic clock."""

    failure: UpstreamFailure
    region: str | None
    token_at: float
    """When the last token came."""
    began: float = field(default_factory=time.monotonic)
    asked: list[str] = field(default_factory=list)
    """Regions that failed since, as often as they did."""
    refused: set[str] = field(default_factory=set)
    """Those of them that found fault with the request itself."""
    gone: set[str] = field(default_factory=set)
    """Regions that were last found without the stream's revision."""


class Search:
    """All that one stream has lost."""

    def __init__(self, seconds: float) -> None:
        self.loss: Loss | None = None
        """What is being searched for; None while an engine generates."""
        self._seconds = seconds
        self._failed: list[str] = []
        """Regions, as often as they failed this stream, the latest last."""

    def note(self, failure: UpstreamFailure, region: str | None, token_at: float) -> Loss:
        """A region failed; None: it is not known which."""
        if self.loss is None:
            self.loss = Loss(failure, region, token_at)
        if region is not None:
            self._failed.append(region)
            self.loss.asked.append(region)
            if failure.refused:
                self.loss.refused.add(region)
            self.loss.gone.discard(region)
            if failure.gone:
                self.loss.gone.add(region)
        return self.loss

    def patience(self, region: str, regions: Sequence[str], first_token: float) -> float:
        """Seconds to wait for a region's first token: many if there is no other to ask, since a whole region's streams
        may have come there at once, and asking anew would only lose a place in the queue."""
        assert self.loss is not None
        if set(regions) - {region, *self.loss.asked}:
            return first_token
        return max(first_token, self.loss.began + self._seconds - time.monotonic())

    def asked_all(self, regions: Sequence[str]) -> bool:
        """Whether every region has failed since the loss."""
        return self.loss is not None and set(regions) <= set(self.loss.asked)

    async def choose(self, regions: Sequence[str]) -> str:
        """The region to ask next, after a pause if it has just failed. Raises GivenUp."""
        assert self.loss is not None
        region = next_region(regions, self._failed)
        if region is None or self.loss.refused.issuperset(regions):
            raise GivenUp("no_region_left", "The engine was lost, and no region can continue the stream.")
        if time.monotonic() - self.loss.began > self._seconds:
            if self.loss.gone.issuperset(regions):
                raise GivenUp("revision_gone", "The engine was lost, and no region runs its revision any more.")
            raise GivenUp("no_region_left", f"No region could continue the stream for {self._seconds:g} s.")
        if times := self.loss.asked.count(region):
            await asyncio.sleep(min(PAUSE_MOST, PAUSE_FIRST * 2 ** (times - 1)))
        return region
