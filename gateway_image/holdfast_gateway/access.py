"""Who may ask, out of the Secrets of all API servers that an agent reads; what was last good of each stays known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from holdfast.api.route import Route
from holdfast.mirror import KubernetesObject, Mirror
from holdfast_gateway.issuers import Issuer, read_issuer
from holdfast_gateway.memory import Memory
from holdfast_gateway.secrets import read_secrets
from holdfast_gateway.sources import Source
from holdfast_gateway.tenants import Tenant, one_tenant_per_name, read_tenant

T = TypeVar("T")
Held = dict[str, Mapping[str, T]]
"""API server → Secret → its content, last good."""


@dataclass(frozen=True)
class Admitted:
    """Who may ask."""

    tenants: tuple[Tenant, ...]
    issuers: tuple[Issuer, ...]
    problems: tuple[str, ...]
    """What is wrong with the Secrets, a sentence each."""


class Access:
    """Follows the Secrets."""

    def __init__(self, memory: Memory) -> None:
        self._tenants: Held[Tenant] = dict(memory.tenants)
        self._issuers: Held[Issuer] = dict(memory.issuers)

    def read(self, sources: Sequence[Source]) -> Admitted:
        """The present state."""
        problems: list[str] = []
        tenants: dict[str, Tenant] = {}
        issuers: dict[str, Issuer] = {}
        for source in sources:
            problems += follow(source.name, "tenant", read_tenant, source.tenants, self._tenants)
            problems += follow(source.name, "issuer of tokens", read_issuer, source.issuers, self._issuers)
            # An edge reads several API servers: where several know a Secret, the first one's counts.
            tenants = {**self._tenants.get(source.name, {}), **tenants}
            issuers = {**self._issuers.get(source.name, {}), **issuers}
        admitted, conflicts = one_tenant_per_name(tenants)
        return Admitted(admitted, tuple(each for _, each in sorted(issuers.items())), (*problems, *conflicts))

    def memory(self, routes: Mapping[str, Mapping[str, Route]], addresses: Mapping[str, tuple[str, ...]]) -> Memory:
        """What must be remembered of it, with the rest."""
        return Memory(routes, addresses, self._tenants, self._issuers)


def follow(
    source: str, what: str, parse: Callable[[KubernetesObject], T], mirror: Mirror | None, held: Held[T]
) -> Sequence[str]:
    """Takes up what an API server says now, if all of it is known; returns problems."""
    if mirror is None or not mirror.complete:
        return ()
    read = read_secrets(what, parse, mirror.objects.values(), held.get(source, {}))
    held[source] = read.found
    return read.problems
