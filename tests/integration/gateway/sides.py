"""A bed whose engines run two revisions, and what its gateways made of their last files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import httpx
from tests.integration.gateway.bed import Bed, Gateway, wait_for

from holdfast.api.names import REVISION_HEADER
from holdfast.api.route import RevisionShare
from holdfast_gateway.options import Role
from holdfast_gateway.state import Snapshot

NEW, OLD = "f00dfeed01", "c0ffee0001"


@dataclass
class Sides(Bed):
    """Regions with engines of several revisions."""

    runs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Region → the revision of each of its engines."""
    shares: tuple[RevisionShare, ...] = ()

    def __post_init__(self) -> None:
        self.regions = {region: len(engines) for region, engines in self.runs.items()}

    def snapshot(self, region: str) -> Snapshot:
        seen = super().snapshot(region)
        runs = dict(zip(self.engine_addresses(region), self.runs[region], strict=True))
        return replace(self._split(seen), revisions={seen.routes[0].key: runs})

    def edge_snapshot(self) -> Snapshot:
        return self._split(super().edge_snapshot())

    def _split(self, seen: Snapshot) -> Snapshot:
        return replace(seen, routes=tuple(each.model_copy(update={"revisions": self.shares}) for each in seen.routes))

    def share(self, **weights: int) -> None:
        """Gives every gateway these shares, in this order, and waits until they hold."""
        names = {"new": NEW, "old": OLD}
        self.shares = tuple(RevisionShare(name=names[name], weight=weight) for name, weight in weights.items())
        self.renew()

    def renew(self) -> None:
        """Writes all files anew and waits until every Envoy has taken them."""
        for name, found in self.gateways.items():
            edge = found.options.role is Role.EDGE
            taken(found, self.edge_snapshot() if edge else self.snapshot(name))
        for name in self.regions:
            for revision in set(self.runs[name]) if self.shares else ():
                alive = [at for at, each in enumerate(self.runs[name]) if each == revision]
                alive = [at for at in alive if self.engines[f"{name}-{at}"].running()]
                self.wait_side(name, revision, len(alive))

    def wait_side(self, region: str, revision: str, count: int) -> None:
        """Until a region's gateway knows that many engines of a revision to be healthy."""
        stat = rf"^cluster\.local/default/chat/{revision}\.membership_healthy$"
        wait_for(lambda: self.gateways[region].stat(stat) == count, f"{count} of {revision} in {region}")

    def sides_of(self, gateway: str, users: Iterable[str]) -> Mapping[str, str]:
        """User → the revision that answers; every answer must be good."""
        found = {}
        with httpx.Client(timeout=20) as client:
            for user in users:
                answer = ask(client, self.gateways[gateway].url, **{"x-user": user})
                found[user] = answer.headers[REVISION_HEADER]
        return found


def ask(client: httpx.Client, url: str, /, body: Mapping[str, object] | None = None, **headers: str) -> httpx.Response:
    """A good answer, by an engine of the revision that the answer names."""
    content = {"model": "llama", **(body or {})}
    answer = client.post(f"{url}/v1/completions", json=content, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def parts(sides: Mapping[str, str]) -> dict[str, int]:
    """Revision → how many users it has."""
    return dict(Counter(sides.values()))


def taken(gateway: Gateway, snapshot: Snapshot) -> None:
    """Writes files and waits until Envoy has taken the routes."""
    gateway.take(snapshot)
