"""The limiter's answers: a question carries whose limit it is and how high, the store knows what is spent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast_gateway.limiter.protocol import OK, OVER_LIMIT, SECONDS, Request, Response
from holdfast_gateway.limiter.store import Store
from holdfast_gateway.limiter.window import Window


@dataclass(frozen=True)
class Question:
    """One descriptor that carries a limit."""

    key: str
    """The name of the count."""
    what: str
    """What is limited: the name of the descriptor's first entry."""
    limit: int
    unit: int
    cost: int
    """What is added if the limit allows it; 0 for what only asks whether there is room."""

    @property
    def seconds(self) -> int:
        """Length of the window."""
        return SECONDS[self.unit]


@dataclass(frozen=True)
class Verdict:
    """What is said about one question."""

    question: Question
    passed: bool
    window: Window


def count_key(domain: str, entries: Sequence[tuple[str, str]], seconds: int) -> str:
    """The name of a count. Lengths keep names apart that hold separators."""
    parts = [domain, *(part for entry in entries for part in entry)]
    return "/".join([*(f"{len(part)}:{part}" for part in parts), str(seconds)])


def read_questions(request: Any) -> list[Question | None]:
    """The questions of a request; None for a descriptor without a limit that can be counted: it always passes."""
    return [read_question(request.domain, each, request.hits_addend or 1) for each in request.descriptors]


def read_question(domain: str, descriptor: Any, cost: int) -> Question | None:
    """One question; `cost` is what the request adds unless the descriptor says otherwise."""
    limit, unit = descriptor.limit.requests_per_unit, descriptor.limit.unit
    if not descriptor.HasField("limit") or unit not in SECONDS:
        return None
    if descriptor.HasField("hits_addend"):
        cost = descriptor.hits_addend.value
    entries = [(entry.key, entry.value) for entry in descriptor.entries]
    what = entries[0][0] if entries else ""
    return Question(count_key(domain, entries, SECONDS[unit]), what, limit, unit, cost)


async def judge(question: Question, store: Store) -> Verdict:
    """The verdict on one question. Raises StoreAway."""
    if question.cost:
        passed, window = await store.take(question.key, question.limit, question.seconds, question.cost)
    else:
        window = await store.read(question.key, question.seconds)
        passed = window.counted < question.limit
    return Verdict(question, passed, window)


async def answer(serialised: bytes, store: Store) -> tuple[bytes, str]:
    """The answer to a request, and what of it is over its limit, if anything. Raises StoreAway; ValueError if it cannot
    be read."""
    questions = read_questions(parse(serialised))
    verdicts = iter(await asyncio.gather(*(judge(each, store) for each in questions if each is not None)))
    response = Response(overall_code=OK)
    over = ""
    for question in questions:
        status = response.statuses.add(code=OK)
        if question is None:
            continue
        verdict = next(verdicts)
        fill(status, verdict)
        if not verdict.passed and not over:
            over = question.what
            refuse(response, verdict)
    return response.SerializeToString(), over


def parse(serialised: bytes) -> Any:
    """A request. Raises ValueError."""
    try:
        return Request.FromString(serialised)
    except Exception as error:  # protobuf's DecodeError, of which each implementation has its own
        raise ValueError("this is no rate limit request") from error


def fill(status: Any, verdict: Verdict) -> None:
    """What Envoy tells the client in `x-ratelimit-…`: the limit, what is left, and seconds to the next change."""
    question, window = verdict.question, verdict.window
    status.code = OK if verdict.passed else OVER_LIMIT
    status.current_limit.requests_per_unit = question.limit
    status.current_limit.unit = question.unit
    status.limit_remaining = window.remaining(question.limit)
    status.duration_until_reset.seconds = math.ceil(window.wait(question.limit) or window.turns_in)


def refuse(response: Any, verdict: Verdict) -> None:
    """Turns an answer into a refusal that says what is spent and when to come again."""
    # The next whole second after that: at the very moment there is no room yet.
    wait = math.floor(verdict.window.wait(verdict.question.limit)) + 1
    response.overall_code = OVER_LIMIT
    response.response_headers_to_add.add(key="retry-after", value=str(wait))
    response.dynamic_metadata.fields["over"].string_value = verdict.question.what
