"""Where counts are kept: in Redis, for all gateways, or in memory, for one. The counting is the library's (`limits`).

Whoever asks never waits long: a store that fails or is too slow is left alone for a second. Keys do not contain the
limit, so that a limit that is changed finds what was spent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from limits.aio.storage import MemoryStorage, RedisStorage
from limits.errors import ConfigurationError
from limits.storage import storage_from_string

from holdfast_gateway.limiter.metrics import LimiterMetrics
from holdfast_gateway.limiter.window import Window

T = TypeVar("T")
MEMORY = "memory"
REST = 1.0
"""Seconds for which a store that failed is not asked."""

BEYOND = 2**53 - 1
"""A limit that nobody reaches, for what has been spent already; scripts in Redis count in doubles."""

Storage = MemoryStorage | RedisStorage


class StoreAway(Exception):
    """The store did not answer, or did not a moment ago."""


class Store:
    """The counts. `timeout` in seconds; `clock` gives seconds that never go back."""

    def __init__(self, storage: Storage, timeout: float, clock: Callable[[], float], metrics: LimiterMetrics) -> None:
        self._storage = storage
        self._timeout = timeout
        self._clock = clock
        self._metrics = metrics
        self._away_until = 0.0
        self._failures: tuple[type[Exception], ...] = (*failures(storage), OSError, TimeoutError)

    async def take(self, key: str, limit: int, seconds: int, amount: int) -> tuple[bool, Window]:
        """Counts the amount if the limit allows it, and says whether it did. Raises StoreAway."""

        async def taken() -> tuple[bool, Window]:
            done = await self._storage.acquire_sliding_window_entry(key, limit, seconds, amount)
            return done, Window(seconds, *await self._storage.get_sliding_window(key, seconds))

        return await self._within(taken)

    async def read(self, key: str, seconds: int) -> Window:
        """What is counted. Raises StoreAway."""

        async def found() -> Window:
            return Window(seconds, *await self._storage.get_sliding_window(key, seconds))

        return await self._within(found)

    async def add(self, key: str, seconds: int, amount: int) -> None:
        """Counts what has been spent, whatever the limit is. Raises StoreAway."""
        await self._within(lambda: self._storage.acquire_sliding_window_entry(key, BEYOND, seconds, amount))

    async def _within(self, work: Callable[[], Awaitable[T]]) -> T:
        if self._clock() < self._away_until:
            raise StoreAway("the store failed a moment ago")
        try:
            async with asyncio.timeout(self._timeout):
                done = await work()
        except self._failures as error:
            self._away_until = self._clock() + REST
            self._metrics.store_errors.inc()
            self._metrics.store_up.set(0)
            raise StoreAway(str(error) or "the store did not answer in time") from error
        self._metrics.store_up.set(1)
        return done


def failures(storage: Storage) -> tuple[type[Exception], ...]:
    """What a storage raises when it cannot do its work."""
    found = storage.base_exceptions
    return found if isinstance(found, tuple) else (found,)


def open_storage(place: str, timeout: float) -> Storage:
    """The storage at `memory` or at a URL of Redis (redis, rediss, redis+sentinel, redis+cluster). Connects later.

    Raises ValueError; its message does not hold the URL, which may hold a password.
    """
    if place == MEMORY:
        return MemoryStorage()
    scheme = place.partition(":")[0]
    if not scheme.startswith("redis"):
        raise ValueError(f"{scheme!r} is no store: give {MEMORY}, or a URL such as redis://HOST:6379/0")
    patience = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    try:
        made = storage_from_string(f"async+{place}", implementation="redispy", key_prefix=PREFIX, **patience)
    except (ConfigurationError, ValueError, TypeError) as error:
        raise ValueError(f"the URL of Redis cannot be used ({type(error).__name__})") from None
    assert isinstance(made, RedisStorage)
    return made


PREFIX = "holdfast"
"""Of all keys in Redis."""
