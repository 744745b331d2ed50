"""Keeps a number of streams in flight until enough have ended, and remembers where each of them is generated."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from holdfast_chaos.client import REGION_HEADER, described
from holdfast_chaos.schedule import prompt
from holdfast_chaos.streams.compare import Received
from holdfast_chaos.streams.reader import EventReader

PROMPTS = 24
TOKENS = (60, 240)
SILENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Question:
    """What one stream asks for; the answer is always the same."""

    prompt: str
    tokens: int


def questions(seed: int) -> list[Question]:
    """Those that are asked again and again."""
    draw = random.Random(f"questions {seed}")
    return [Question(prompt(draw, number), draw.randint(*TOKENS)) for number in range(PROMPTS)]


@dataclass(frozen=True)
class Ended:
    """A stream that is over. Times of `time.monotonic()`."""

    question: Question
    received: Received
    started: float
    ended: float


class Streams:
    """Streams through one gateway."""

    def __init__(self, url: str, model: str) -> None:
        self._url = f"{url}/v1/completions"
        self._model = model
        self._running: set[EventReader] = set()

    def busiest(self) -> str | None:
        """The region that generates most of those in flight."""
        regions = Counter(each.received.regions[-1] for each in self._running if each.received.regions)
        return regions.most_common(1)[0][0] if regions else None

    async def keep(self, plan: Iterator[Question], in_flight: int, tell: Callable[[Ended], None]) -> None:
        """Ask what `plan` says, so many at a time, until it ends."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one_after_the_other() -> None:
                for question in plan:
                    tell(await self._ask(session, question))

            async with asyncio.TaskGroup() as tasks:
                for _ in range(in_flight):
                    tasks.create_task(one_after_the_other())

    async def _ask(self, session: aiohttp.ClientSession, question: Question) -> Ended:
        body: dict[str, Any] = {
            **{"model": self._model, "prompt": question.prompt, "max_tokens": question.tokens, "temperature": 0},
            **{"ignore_eos": True, "stream": True, "return_token_ids": True},
            "stream_options": {"include_usage": True},
        }
        reader, started = EventReader(), time.monotonic()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_SECONDS)
        self._running.add(reader)
        try:
            async with session.post(self._url, json=body, timeout=timeout) as response:
                reader.received.regions.append(response.headers.get(REGION_HEADER, ""))
                if response.status != 200:
                    reader.received.error = f"status {response.status}: {(await response.text())[:200]}"
                while data := await response.content.readany():
                    reader.feed(data, time.monotonic())
        except (aiohttp.ClientError, OSError, TimeoutError) as problem:
            reader.received.error = described(problem)
        finally:
            self._running.discard(reader)
        return Ended(question, reader.received, started, time.monotonic())
