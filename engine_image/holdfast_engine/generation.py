"""One request's way through the engine, as the answer to it sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from holdfast_engine.admission import Priority
from holdfast_engine.errors import EngineError
from holdfast_engine.port import Output, Task
from holdfast_engine.tracing import Timeline


class Generation:
    """Read `prompt_ids` once, then `next` until it gives a reason. Closing it stops its work."""

    def __init__(
        self, task: Task, on_close: Callable[[Generation, str], None], now: float, priority: Priority = Priority.NORMAL
    ) -> None:
        self.task = task
        self.id = task.id
        self.probe = task.probe
        """Whether an observer asked for it: then it is nobody's traffic, and no metric counts it."""
        self.submitted_at = now
        self.timeline = Timeline(now, priority)
        self.last_token_at: float | None = None
        self.started = False
        """Whether the engine works on it, as it has said."""
        self.prompt_tokens = 0
        """Known once it is accepted."""
        self.expiry: asyncio.TimerHandle | None = None
        """Refuses it unless it has started by then."""
        self._news: deque[list[int] | Output | EngineError] = deque()
        self._told = asyncio.Event()
        self._on_close = on_close
        self._closed = False

    def tell(self, news: list[int] | Output | EngineError) -> None:
        """The prompt's ids, then outputs; or why there are none, or no more."""
        self._news.append(news)
        self._told.set()

    async def prompt_ids(self) -> list[int]:
        """The prompt's token ids once the request is accepted; raises EngineError when it is refused."""
        item = await self._first()
        assert isinstance(item, list)
        return item

    async def next(self) -> Output:
        """What is new, with the finish reason at the end; raises EngineError when generation failed.

        What came while nobody was looking is one piece: the busier this process is, the less it does for each token.
        """
        item = await self._first()
        assert isinstance(item, Output)
        while self._news and isinstance(more := self._news[0], Output):
            self._news.popleft()
            item = _joined(item, more)
        return item

    async def _first(self) -> list[int] | Output:
        while not self._news:
            self._told.clear()
            await self._told.wait()
        item = self._news.popleft()
        if isinstance(item, EngineError):
            raise item
        return item

    def cancel_expiry(self) -> None:
        if self.expiry is not None:
            self.expiry.cancel()

    def close(self, reason: str) -> None:
        """The answer ended with `reason` (stop, length, abort, error); unfinished work is cancelled."""
        if not self._closed:
            self._closed = True
            self._on_close(self, reason)


def _joined(one: Output, more: Output) -> Output:
    text = None if one.text is None and more.text is None else (one.text or "") + (more.text or "")
    logprobs = None if one.logprobs is None or more.logprobs is None else one.logprobs + more.logprobs
    return Output(one.id, one.token_ids + more.token_ids, more.reason, text, logprobs)
