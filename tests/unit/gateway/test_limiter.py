"""The limiter's answers, with the library's own storage in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from limits.aio.storage import MemoryStorage

from holdfast_gateway.limiter.decide import answer, count_key
from holdfast_gateway.limiter.metrics import LimiterMetrics
from holdfast_gateway.limiter.protocol import ADMITTED, OK, OVER_LIMIT, Request, Response
from holdfast_gateway.limiter.store import REST, Store, StoreAway, open_storage


class Clock:
    """Time that moves when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Sick(MemoryStorage):
    """A storage whose server is away, or does not answer."""

    asked = 0
    frozen = False
    well = False

    async def get(self, key: str) -> int:
        if not self.well:
            self.asked += 1
            if self.frozen:
                await asyncio.Event().wait()
            raise ConnectionError("refused")
        return await super().get(key)


def store(storage: MemoryStorage | None = None, clock: Clock | None = None, timeout: float = 5) -> Store:
    return Store(storage or MemoryStorage(), timeout, clock or Clock(), LimiterMetrics())


def request(*descriptors: tuple[str, int, int | None], unit: int = 2) -> bytes:
    """A request for tenant acme: what is counted, the limit (0 for none), and what is added."""
    made = Request(domain="holdfast")
    for what, limit, cost in descriptors:
        descriptor = made.descriptors.add()
        descriptor.entries.add(key=what, value="acme")
        if limit:
            descriptor.limit.requests_per_unit, descriptor.limit.unit = limit, unit
        if cost is not None:
            descriptor.hits_addend.value = cost
    return bytes(made.SerializeToString())


async def ask(asked: bytes, counts: Store) -> tuple[Any, str]:
    response, over = await answer(asked, counts)
    return Response.FromString(response), over


async def test_as_many_pass_as_the_limit_says_and_the_next_hears_why_and_when_to_come_again() -> None:
    counts = store()
    passed = [await ask(request(("requests", 3, 1)), counts) for _ in range(3)]
    assert [response.overall_code for response, _ in passed] == [OK] * 3
    assert [response.statuses[0].limit_remaining for response, _ in passed] == [2, 1, 0]
    refused, over = await ask(request(("requests", 3, 1)), counts)
    assert (refused.overall_code, over) == (OVER_LIMIT, "requests")
    (header,) = refused.response_headers_to_add
    assert header.key == "retry-after"
    assert 1 <= int(header.value) <= 121
    assert dict(refused.dynamic_metadata) == {"over": "requests"}


async def test_what_costs_nothing_passes_until_the_count_has_reached_the_limit_and_is_not_counted() -> None:
    counts = store()
    for _ in range(5):
        response, over = await ask(request(("tokens", 100, 0)), counts)
        assert (response.overall_code, over) == (OK, "")
    await counts.add(count_key("holdfast", [("tokens", "acme")], 60), 60, 250)
    response, over = await ask(request(("tokens", 100, 0)), counts)
    assert (response.overall_code, over) == (OVER_LIMIT, "tokens")


async def test_one_of_several_limits_suffices_to_refuse() -> None:
    counts = store()
    await counts.add(count_key("holdfast", [("tokens", "acme")], 60), 60, 100)
    response, over = await ask(request(("requests", 3, 1), ("tokens", 100, 0)), counts)
    assert [status.code for status in response.statuses] == [OK, OVER_LIMIT]
    assert over == "tokens"


async def test_what_has_no_limit_or_one_over_months_passes_and_each_descriptor_has_its_status() -> None:
    response, over = await ask(request(("requests", 0, 1), ("tokens", 0, 0)), store())
    assert (response.overall_code, [each.code for each in response.statuses], over) == (OK, [OK, OK], "")
    response, _ = await ask(request(("requests", 1, 5), unit=5), store())
    assert response.overall_code == OK


async def test_a_request_that_is_none_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no rate limit request"):
        await answer(b"\xff\xff", store())


def test_the_answer_that_says_yes_says_nothing_else() -> None:
    response = Response.FromString(ADMITTED)
    assert (response.overall_code, list(response.statuses)) == (OK, [])


@pytest.mark.parametrize("frozen", [False, True])
async def test_a_store_that_fails_is_left_alone_for_a_while_and_then_asked_again(frozen: bool) -> None:
    storage, clock = Sick(), Clock()
    storage.frozen = frozen
    counts = store(storage, clock, timeout=0.001)
    for _ in range(3):
        with pytest.raises(StoreAway):
            await counts.read("key", 60)
    assert storage.asked == 1
    clock.now = REST
    storage.well = True
    assert (await counts.read("key", 60)).counted == 0


NAMES = st.text(alphabet="a/:1", max_size=6)


@given(st.lists(st.tuples(NAMES, NAMES), max_size=3), st.lists(st.tuples(NAMES, NAMES), max_size=3))
def test_counts_of_different_descriptors_have_different_names(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    assert (count_key("d", one, 60) == count_key("d", other, 60)) == (one == other)


@pytest.mark.parametrize("place", ["mysql://h", "redis+nothing://h", "redis://:secret@h:port"])
def test_a_store_that_is_none_is_refused_without_telling_its_password(place: str) -> None:
    with pytest.raises(ValueError, match=r"store|URL") as caught:
        open_storage(place, 1)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
