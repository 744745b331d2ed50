"""Counts the tokens of ended requests, from the ledger's spool, into the store that questions are answered from.

A request's tokens are known when it ends, and those of many streams to the relay alone: so they are counted afterwards,
and a request is admitted as long as those counted in the last minute are below the limit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from holdfast_gateway.ledger.follower import Follower
from holdfast_gateway.ledger.record import Outcome, Record
from holdfast_gateway.limiter.decide import count_key
from holdfast_gateway.limiter.metrics import LimiterMetrics
from holdfast_gateway.limiter.store import Store, StoreAway
from holdfast_gateway.render.limits import DOMAIN, TOKENS

log = logging.getLogger(__name__)
WINDOW = 60
"""Seconds: limits are per minute."""
POLL = 0.1


def tokens_key(tenant: str) -> str:
    """The name of the count that Envoy asks about."""
    return count_key(DOMAIN, [(TOKENS, tenant)], WINDOW)


def spent(record: Record) -> int | None:
    """Tokens of a request's prompt and answer; None: neither is known."""
    if record.tokens_in is None and record.tokens_out is None:
        return None
    return max(0, record.tokens_in or 0) + max(0, record.tokens_out or 0)


class TokenCount:
    """Brings tokens from the spool to the store. `clock` gives seconds that never go back."""

    def __init__(self, store: Store, metrics: LimiterMetrics, clock: Callable[[], float]) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._owed: deque[tuple[float, Counter[str]]] = deque()
        """What is not in the store yet: since when, and tokens of each tenant."""

    def note(self, records: Sequence[Record], now: datetime) -> None:
        """Takes up requests that have ended."""
        found: Counter[str] = Counter()
        for record in records:
            tokens = spent(record)
            if tokens is not None and record.tenant:
                found[record.tenant] += tokens
                self._metrics.token_lag.observe(max(0.0, (now - record.ended).total_seconds()))
            elif record.tenant and record.outcome is Outcome.COMPLETED and record.model:
                self._metrics.untold.inc()
        if found:
            self._owed.append((self._clock(), found))

    async def settle(self) -> None:
        """Counts what is owed, but for what the window would have forgotten. Raises StoreAway; call it again then."""
        while self._owed:
            since, tokens = self._owed[0]
            if self._clock() - since > WINDOW:
                self._owed.popleft()
                continue
            for tenant, amount in list(tokens.items()):
                if amount:
                    await self._store.add(tokens_key(tenant), WINDOW, amount)
                    self._metrics.tokens.inc(amount)
                del tokens[tenant]
            self._owed.popleft()


async def count_tokens(follower: Follower, counting: TokenCount) -> None:
    """Works until cancelled. A spool that cannot be read is told of, and tried again."""
    complained = False
    while True:
        try:
            # In a thread: what was written in a rush takes a while to read, and Envoy's questions must not wait for it.
            found = await asyncio.to_thread(follower.read, time.monotonic())
        except OSError as error:
            if not complained:
                log.error("the spool cannot be read, tokens are not counted: %s", error)
            complained = True
            found = None
        if found is not None:
            complained = False
            counting.note(found.records, datetime.now(UTC))
        try:
            await counting.settle()
        except StoreAway as error:
            log.debug("tokens wait for the store: %s", error)
        if found is None or found.at_end:
            await asyncio.sleep(POLL)
