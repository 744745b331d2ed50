"""Reads that many share."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.adapters.election import NextRead
from holdfast.errors import Unreachable


class Counter:
    """A slow read that gives 1, 2, 3, …"""

    def __init__(self) -> None:
        self.begun = 0
        self.under_way = asyncio.Event()
        self.go_on = asyncio.Event()

    async def read(self) -> int:
        self.begun += 1
        mine = self.begun
        self.under_way.set()
        await self.go_on.wait()
        return mine


async def test_all_that_ask_before_a_read_begins_share_it() -> None:
    counter = Counter()
    counter.go_on.set()
    reads = NextRead(counter.read)

    assert await asyncio.gather(*(reads.get() for _ in range(50))) == [1] * 50


async def test_who_asks_while_a_read_is_under_way_gets_the_next_one() -> None:
    counter = Counter()
    reads = NextRead(counter.read)
    early = asyncio.create_task(reads.get())
    await counter.under_way.wait()
    late = [asyncio.create_task(reads.get()) for _ in range(3)]
    await asyncio.sleep(0)
    counter.go_on.set()

    assert await early == 1
    assert await asyncio.gather(*late) == [2, 2, 2]


async def test_a_read_that_fails_fails_for_all_and_the_next_is_tried() -> None:
    outcomes = iter([Unreachable("no answer"), 7])

    async def read() -> int:
        found = next(outcomes)
        if isinstance(found, Exception):
            raise found
        return found

    reads = NextRead(read)
    assert [type(each) for each in await asyncio.gather(reads.get(), reads.get(), return_exceptions=True)] == [
        Unreachable,
        Unreachable,
    ]
    assert await reads.get() == 7


async def test_who_gives_up_takes_the_read_from_nobody() -> None:
    counter = Counter()
    reads = NextRead(counter.read)
    impatient, patient = asyncio.create_task(reads.get()), asyncio.create_task(reads.get())
    await counter.under_way.wait()
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    counter.go_on.set()

    assert await patient == 1
