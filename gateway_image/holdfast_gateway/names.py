"""Resolves the peers that are given by name, since Envoy's endpoint files take IP addresses only.

What was found stays until something newer is found: a name that cannot be resolved now keeps its addresses.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable, Mapping

log = logging.getLogger(__name__)

TIMEOUT = 2.0
"""Seconds for one round of look-ups."""

REFRESH = 30.0
"""Seconds between two rounds."""


class Names:
    """Addresses of host names, last known."""

    def __init__(self, known: Mapping[str, tuple[str, ...]], changed: asyncio.Event) -> None:
        self.addresses = dict(known)
        self._wanted: frozenset[str] = frozenset()
        self._changed = changed

    async def want(self, hosts: frozenset[str]) -> None:
        """From now on these are resolved; those never seen before at once, within a bounded time."""
        self._wanted = hosts
        await self._look_up(hosts - self.addresses.keys())

    async def run(self) -> None:
        """Looks all names up again and again until cancelled."""
        while True:
            await asyncio.sleep(REFRESH)
            if await self._look_up(self._wanted):
                self._changed.set()

    async def _look_up(self, hosts: Iterable[str]) -> bool:
        changed = False
        hosts = sorted(hosts)
        for host, found in zip(hosts, await asyncio.gather(*map(look_up, hosts)), strict=True):
            if found and found != self.addresses.get(host):
                self.addresses[host] = found
                changed = True
        return changed


async def look_up(host: str) -> tuple[str, ...]:
    """Sorted IP addresses of a host name; empty if it cannot be resolved in time."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(TIMEOUT):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        log.warning("host name %s cannot be resolved: %s", host, error)
        return ()
    return tuple(sorted({str(entry[4][0]) for entry in found}))
