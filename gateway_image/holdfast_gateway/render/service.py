"""All that Envoy has to know of one service: clusters, their hosts, and a route table for each port."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from holdfast.api.route import Route
from holdfast_gateway.options import Options, Role
from holdfast_gateway.render import clusters, endpoints, kserve, routes, sides, spare, tables, tls
from holdfast_gateway.render.endpoints import Hop
from holdfast_gateway.render.routes import CLIENT_ROUTES, OUTBOUND_ROUTES, PEER_ROUTES
from holdfast_gateway.render.streams import stream
from holdfast_gateway.render.values import Document
from holdfast_gateway.state import Snapshot
from holdfast_gateway.tenants import Tenant, allowed


@dataclass(frozen=True)
class Part:
    """What all of it depends on, besides the options."""

    snapshot: Snapshot
    """Its route, then that of the service that stands in for it and one for which it does; with their engines and the
    addresses of its peers."""
    users: tuple[str, ...] | None
    """The tenants that may use it; None: everybody."""

    @property
    def route(self) -> Route:
        """The service's own."""
        return self.snapshot.routes[0]


@dataclass(frozen=True)
class Made:
    """What was made of it, besides."""

    stream: Document
    """What the relay is told of the service."""
    hops: tuple[Hop, ...]
    """The regions where the relay can ask for it."""


class Users:
    """Which tenants may use a model; asked again for every service with every change."""

    def __init__(self) -> None:
        self._tenants: Sequence[Tenant] = ()
        self._of: dict[str, tuple[str, ...]] = {}

    def of(self, model: str, tenants: Sequence[Tenant]) -> tuple[str, ...]:
        """Their names, as `allowed` says."""
        if self._tenants != tenants:
            self._tenants, self._of = tenants, {}
        if model not in self._of:
            self._of[model] = allowed(tenants, model)
        return self._of[model]


def parts(snapshot: Snapshot, users: Users, guarded: bool) -> Iterator[Part]:
    """One for each service. `guarded`: whether tenants must say who they are."""
    stand_ins = spare.spares(snapshot.routes)
    by_key = {route.key: route for route in snapshot.routes}
    replaced = {other.key: by_key[key] for key, other in reversed([*stand_ins.items()])}
    for route in snapshot.routes:
        others = (stand_ins.get(route.key), replaced.get(route.key))
        chosen = (route, *(other for other in others if other is not None))
        seen = Snapshot(
            chosen,
            {each.key: snapshot.engines[each.key] for each in chosen if each.key in snapshot.engines},
            {each.address: snapshot.resolve(each.address) for each in route.regions},
            revisions={each.key: snapshot.revisions[each.key] for each in chosen if each.key in snapshot.revisions},
        )
        yield Part(seen, users.of(route.model, snapshot.tenants) if guarded else None)


def make(part: Part, options: Options, directory: str) -> tuple[list[Document], Made]:
    """Makes it; `directory` is where Envoy finds its files."""
    route, snapshot = part.route, part.snapshot
    hops = endpoints.hops_in_order(route, snapshot, options)
    found = [each for pair in clusters_of(route, snapshot, options, directory) for each in pair]
    other = spare.spares(snapshot.routes).get(route.key)
    if other is not None:
        found.append(spare.cluster(route, other))
    ports = [(CLIENT_ROUTES, route.model, routes.client_table_of(route, part.users, other, options))]
    if options.role is Role.REGIONAL:
        ports.append((PEER_ROUTES, route.key, routes.peer_table_of(route, other, snapshot)))
    if options.relay_port:
        ports.append((OUTBOUND_ROUTES, route.key, routes.outbound_table_of(route, other, options)))
    for port, asked, table in ports:
        found += [table, tables.scope(port, asked, table["name"])]
    return found, Made(stream(route, hops), tuple(hops))


def clusters_of(
    route: Route, snapshot: Snapshot, options: Options, directory: str
) -> Iterator[tuple[Document, Document]]:
    """A service's clusters, each with its hosts."""
    if options.role is Role.REGIONAL and route.local:
        for revision in (None, *sides.apart(route, snapshot)):
            hosts = endpoints.local_endpoints(route, snapshot, revision)
            yield clusters.local(route, options, revision), hosts
            yield kserve.cluster(route, options, revision), kserve.endpoints(route, hosts, revision)
    cluster = clusters.service(route, options)
    yield to_peers(cluster, options, directory), endpoints.service_endpoints(route, snapshot, options)
    if options.relay_port:
        cluster = clusters.stream(route, options)
        if options.asks_by_tls:
            cluster["transport_socket_matches"] = tls.to_stream(directory)
        yield cluster, endpoints.stream_endpoints(route, snapshot, options)


def to_peers(cluster: Document, options: Options, directory: str) -> Document:
    """The cluster with TLS, if gateways speak it."""
    return cluster | ({"transport_socket": tls.to_peers(directory)} if options.asks_by_tls else {})
