"""Tokens on their way from records of ended requests to the counts that questions are answered from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from limits.aio.storage import MemoryStorage
from prometheus_client import Counter

from holdfast_gateway.ledger.follower import Follower
from holdfast_gateway.ledger.record import Outcome, Record
from holdfast_gateway.limiter.metrics import LimiterMetrics
from holdfast_gateway.limiter.store import REST, Store, StoreAway
from holdfast_gateway.limiter.tokens import WINDOW, TokenCount, tokens_key
from holdfast_gateway.render.usage import SPOOL_FILE
from holdfast_gateway.tenants import Settings, Tenant, unenforced

NOW = datetime(2026, 1, 1, 12, 0, 1, tzinfo=UTC)


class Clock:
    """Time that moves when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Storage(MemoryStorage):
    """In memory, and away when it is told to be; `spare` calls still succeed."""

    spare = 1_000

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        if self.spare == 0:
            raise ConnectionError("refused")
        self.spare -= 1
        return bool(await super().acquire_sliding_window_entry(key, limit, expiry, amount))


class Case:
    """A count with its store."""

    def __init__(self) -> None:
        self.clock, self.storage, self.metrics = Clock(), Storage(), LimiterMetrics()
        self.store = Store(self.storage, 5, self.clock, self.metrics)
        self.count = TokenCount(self.store, self.metrics, self.clock)

    async def counted(self, tenant: str) -> int:
        return (await self.store.read(tokens_key(tenant), WINDOW)).counted


def record(tenant: str | None, tokens_in: int | None, tokens_out: int | None, **fields: object) -> Record:
    """A request that has ended a second before NOW."""
    made: Mapping[str, object] = {
        "id": "1", "request_id": None, "time": "2026-01-01T12:00:00.000Z", "tenant": tenant, "model": "llama",
        "service": None, "revision": None, "region": None, "regions": (), "method": "POST", "path": "/v1/completions",
        "stream": False, "tokens_in": tokens_in, "tokens_out": tokens_out, "ttft_ms": None, "latency_ms": 0,
        "status": 200, "outcome": Outcome.COMPLETED, "resumed": 0, "attempts": 1, "gateway": "",
    } | fields  # fmt: skip
    return Record(**made)  # type: ignore[arg-type]


async def test_tokens_of_prompts_and_answers_are_counted_for_each_tenant() -> None:
    case = Case()
    case.count.note([record("acme", 30, 12), record("acme", 5, None), record("other", None, 7)], NOW)
    case.count.note([record("acme", 1, 1)], NOW)
    await case.count.settle()
    assert (await case.counted("acme"), await case.counted("other")) == (49, 7)
    assert value(case.metrics.tokens) == 56


async def test_what_is_nobodys_or_unknown_is_not_counted_and_an_answer_that_tells_no_tokens_is_told_of() -> None:
    case = Case()
    silent = [record("acme", None, None), record("acme", None, None, outcome=Outcome.REFUSED, status=429)]
    case.count.note([record(None, 10, 10), *silent], NOW)
    await case.count.settle()
    assert await case.counted("acme") == 0
    assert value(case.metrics.untold) == 1


async def test_nothing_is_lost_or_counted_twice_while_the_store_is_away_for_a_while() -> None:
    case = Case()
    case.storage.spare = 1
    case.count.note([record("acme", 10, 0), record("other", 20, 0)], NOW)
    for _ in range(3):
        with pytest.raises(StoreAway):
            await case.count.settle()
    case.storage.spare, case.clock.now = 1_000, REST
    await case.count.settle()
    assert (await case.counted("acme"), await case.counted("other")) == (10, 20)


async def test_what_the_window_would_have_forgotten_is_not_counted_when_the_store_is_back() -> None:
    case = Case()
    case.storage.spare = 0
    case.count.note([record("acme", 10, 0)], NOW)
    with pytest.raises(StoreAway):
        await case.count.settle()
    case.clock.now = WINDOW + 1
    case.count.note([record("acme", 3, 0)], NOW)
    case.storage.spare = 1_000
    await case.count.settle()
    assert await case.counted("acme") == 3


def test_a_limit_of_tokens_that_nobody_counts_is_named() -> None:
    tenants = (Tenant(name="a", settings=Settings(tokens_per_minute=5)), Tenant(name="b"))
    assert unenforced(tenants, tokens_are_counted=True) == ()
    (sentence,) = unenforced(tenants, tokens_are_counted=False)
    assert "tenant a " in sentence


@pytest.mark.parametrize("before", ["", '{"attempts":1,"id":"1","time":"2026-01-01T12:00:00Z"}\n'])
def test_a_spool_is_followed_from_now_on_whatever_is_there(tmp_path: Path, before: str) -> None:
    spool = tmp_path / SPOOL_FILE
    spool.write_text(before)
    follower = Follower(tmp_path)
    assert follower.read(0).records == []
    with spool.open("a") as file:
        file.write('{"attempts":1,"id":"2","time":"2026-01-01T12:00:01Z","status":200}\n')
    assert [record.id for record in follower.read(0).records] == ["2"]


def value(counter: Counter) -> float:
    """What a counter has come to."""
    return next(each.value for each in next(iter(counter.collect())).samples if each.name.endswith("_total"))
