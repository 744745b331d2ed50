"""What the agent knows at one moment, as a value: routes, engines, resolved addresses. No I/O, no Envoy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from holdfast.api.route import Route
from holdfast_gateway.issuers import Issuer
from holdfast_gateway.tenants import Tenant


@dataclass(frozen=True)
class Snapshot:
    """Everything that Envoy's files are computed from, besides the options."""

    routes: tuple[Route, ...] = ()
    """One route per service, sorted by key."""
    engines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Route key → IP addresses of the engines in this region that take requests."""
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Host name of a peer → its IP addresses, last known. IP addresses need no entry."""
    tenants: tuple[Tenant, ...] = ()
    """Sorted by name."""
    issuers: tuple[Issuer, ...] = ()
    """Sorted by Secret."""
    revisions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Route key → IP address of an engine → its revision, as far as its Pod says."""

    def resolve(self, host: str) -> tuple[str, ...]:
        """IP addresses of a peer; empty while its name has never been resolved."""
        return (host,) if is_ip(host) else self.addresses.get(host, ())

    def host_names(self) -> frozenset[str]:
        """Peers that are given by name and therefore need resolving."""
        peers = {target.address for route in self.routes for target in route.regions}
        return frozenset(peer for peer in peers if not is_ip(peer))


@dataclass(frozen=True)
class Conflict:
    """Two services that claim one model name; only the first is served."""

    model: str
    served: str
    refused: str

    @property
    def message(self) -> str:
        """A sentence for logs."""
        return f"model {self.model!r} is claimed by {self.served} and {self.refused}; {self.served} serves it"


def is_ip(host: str) -> bool:
    """Whether Envoy can use the address as it is."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def one_service_per_model(routes: Iterable[Route]) -> tuple[tuple[Route, ...], tuple[Conflict, ...]]:
    """Routes sorted by key, only the first of several with the same model; and what was refused."""
    owners: dict[str, Route] = {}
    conflicts = []
    for route in sorted(routes, key=lambda route: route.key):
        owner = owners.setdefault(route.model, route)
        if owner is not route:
            conflicts.append(Conflict(route.model, owner.key, route.key))
    return tuple(owners.values()), tuple(conflicts)


@dataclass(frozen=True)
class SourceRoutes:
    """The routes that one API server gave last, and whether it can be reached now."""

    routes: Mapping[str, Route]
    reachable: bool


def agreed_routes(sources: Sequence[SourceRoutes]) -> dict[str, Route]:
    """The union of what several API servers say, for an edge.

    Regions write equal routes but for `region`, `local`, `routed` and `revisions`. Where they differ, one is behind:
    the version that most reachable servers hold wins, the first of them on a tie. A server that cannot be reached has
    a say only about services that no reachable one knows, so that nothing disappears with it.
    """
    agreed: dict[str, Route] = {}
    for reachable in (True, False):
        votes: dict[str, list[Route]] = {}
        for source in sources:
            if source.reachable is reachable:
                for key, route in source.routes.items():
                    votes.setdefault(key, []).append(route)
        for key, versions in votes.items():
            agreed.setdefault(key, versions[0] if len(versions) == 1 else most_common(versions))
    return agreed


def most_common(versions: Sequence[Route]) -> Route:
    """The route that most agree on, not counting who wrote it and what it alone runs; the earliest of equals."""
    own: dict[str, Any] = {"region": "", "local": True, "routed": None, "revisions": ()}
    shared = [route.model_copy(update=own) for route in versions]
    winner, _ = Counter(shared).most_common(1)[0]
    return versions[shared.index(winner)]
