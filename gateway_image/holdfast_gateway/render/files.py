"""All of Envoy's files for one snapshot, in the order in which they must be written.

What grows with the services is in files whose names begin with `xds-`: one for each service, and one for the rest. The
process that runs Envoy serves it what they hold, in the order in which one thing names another, and then lets it have
the listeners. Envoy follows the other files itself; what they name is written before them. Routes come before what
tells tenants' limits, and that before their keys: a tenant that can enter is known inside.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from holdfast_gateway.options import Auth, Options, Role
from holdfast_gateway.render import clusters, door, endpoints, listeners, routes, service, tables, tls
from holdfast_gateway.render.answers import View, views
from holdfast_gateway.render.bootstrap import SOCKET, bootstrap
from holdfast_gateway.render.endpoints import Hop
from holdfast_gateway.render.routes import CLIENT_ROUTES, PEER_ROUTES
from holdfast_gateway.render.streams import STREAMS
from holdfast_gateway.render.values import Document
from holdfast_gateway.state import Snapshot

BOOTSTRAP = "bootstrap.yaml"
LISTENERS = "listeners.json"
FOLLOWED_LISTENERS = "lds.json"
"""The same, once Envoy can have all that they lead to: no port opens before what it serves is known."""
GATEWAY = "xds-gateway.json"
RESOURCES = re.compile(r"xds-.+\.json")
"""Names of the files that Envoy is served."""
PRIVATE = frozenset({door.KEYS})
"""Files that hold secrets."""

Files = dict[str, Document]
"""File name → content, in the order of writing."""

T = TypeVar("T")
F = TypeVar("F")


def start_files(options: Options, directory: str) -> Files:
    """What Envoy needs before anything is known: no client and no peer port, so nobody counts on it yet."""
    return {
        LISTENERS: discovery([]),
        BOOTSTRAP: bootstrap(options, f"{directory}/{FOLLOWED_LISTENERS}", f"{directory}/{SOCKET}"),
    }


def files(snapshot: Snapshot, options: Options, directory: str) -> Files:
    """Everything but the bootstrap. `directory` is where Envoy will find the files: an absolute path."""
    return Renderer(options, directory, lambda _, document: document).files(snapshot)


class Renderer(Generic[F]):
    """Makes the files of one gateway again and again. What nothing changed is the very object that it was: the time for
    a change of one service must not grow with the services."""

    def __init__(self, options: Options, directory: str, finish: Callable[[str, Document], F]) -> None:
        """`finish` makes a file of its name and its content."""
        self._options = options
        self._directory = directory
        self._finish = finish
        self._users = service.Users()
        self._made: dict[str, tuple[object, Any]] = {}
        """What → what it was made from, and what was made."""
        self._used: set[str] = set()

    def files(self, snapshot: Snapshot) -> dict[str, F]:
        """As the function of this name."""
        options, directory = self._options, self._directory
        guarded = options.auth is Auth.REQUIRED
        self._used.clear()
        built = {name: self._file(name, None, partial(discovery, held)) for name, held in secrets(options).items()}
        made = {}
        for part in service.parts(snapshot, self._users, guarded):
            found, name, file = self._once(part.route.key, part, partial(self._service, part))
            made[part.route.key], built[name] = found, file
        seen = views(snapshot.routes, snapshot.tenants if guarded else ())
        # A region has one gateway, whichever service asks for it.
        hops = {hop.region: hop for each in reversed([*made.values()]) for hop in reversed(each.hops)}
        peers = tuple(hops[region] for region in sorted(hops)) if options.relay_port else ()
        built[GATEWAY] = self._file(GATEWAY, (seen, peers), lambda: discovery(rest(seen, peers, options, directory)))
        if guarded:
            who = (snapshot.tenants, snapshot.issuers)
            found_there = self._once("door", who, lambda: door.resources(snapshot, options))
            built |= {name: self._file(name, each, partial(discovery, [each])) for name, each in found_there.items()}
        if options.role is Role.REGIONAL:
            own = tuple(route.key for route in snapshot.routes if route.local)
            ready = listeners.READY
            built[ready] = self._file(ready, own, lambda: discovery([listeners.engines_ready(own)]))
        if options.relay_port:
            told = {key: each.stream for key, each in made.items()}
            built[STREAMS] = self._file(STREAMS, told, lambda: {"services": told})
        built[LISTENERS] = self._file(LISTENERS, None, lambda: discovery(ports(options, directory)))
        self._made = {what: self._made[what] for what in self._used}
        return built

    def _service(self, part: service.Part) -> tuple[service.Made, str, F]:
        resources, made = service.make(part, self._options, self._directory)
        name = service_file(part.route.key)
        return made, name, self._finish(name, discovery(resources))

    def _file(self, name: str, source: object, make: Callable[[], Document]) -> F:
        return self._once(name, source, lambda: self._finish(name, make()))

    def _once(self, what: str, source: object, make: Callable[[], T]) -> T:
        """What was made last, if the source is the same."""
        self._used.add(what)
        if what not in self._made or self._made[what][0] != source:
            self._made[what] = (source, make())
        found: T = self._made[what][1]
        return found


def secrets(options: Options) -> dict[str, list[Document]]:
    """File name → where Envoy finds a certificate."""
    found = tls.secrets(options.peer_tls) if options.peer_tls else {}
    return found | ({tls.FRONT: tls.front_secret(options.client_tls)} if options.client_tls else {})


def ports(options: Options, directory: str) -> list[Document]:
    """The listeners."""
    client = listeners.client(options, directory)
    if options.client_tls:
        client["filter_chains"][0]["transport_socket"] = tls.client_port(directory)
    found = [client]
    if options.relay_port:
        found.append(listeners.outbound(options))
    if options.role is Role.REGIONAL:
        peer = listeners.peer(options)
        if options.peer_tls:
            peer = tls.guarded(peer, options.peer_tls_mode, directory)
        found += [listeners.ready(directory), peer]
    return found


def rest(seen: Sequence[View], peers: Sequence[Hop], options: Options, directory: str) -> list[Document]:
    """What belongs to no single service: the way to each region, and the routes of what names no service."""
    found = []
    for hop in peers:
        cluster = service.to_peers(clusters.peer(hop.region, options), options, directory)
        found += [cluster, endpoints.peer_endpoints(hop)]
    without = [(CLIENT_ROUTES, routes.client_table(seen, options))]
    if options.role is Role.REGIONAL:
        without.append((PEER_ROUTES, routes.peer_table(options)))
    for port, table in without:
        found += [table, tables.scope(port, tables.NONE, table["name"])]
    return found


def service_file(key: str) -> str:
    """A file name for a service: readable, and unique even where two names read alike."""
    readable = re.sub(r"[^a-z0-9.-]+", "-", key.lower())[:80]
    return f"xds-{readable}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.json"


def discovery(resources: Sequence[Document]) -> Document:
    """The envelope of every dynamic file."""
    return {"resources": [*resources]}
