"""All of Envoy's files for one snapshot, in the order in which they must be written.

Endpoints come before the clusters that read them, clusters and route tables before the listeners that use
them: whatever Envoy reads, at any moment or after any crash between two files, refers to files that exist.
Routes come before what tells tenants' limits, and that before their keys: a tenant that can enter is known inside.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from holdfast.api.route import Route
from holdfast_gateway.options import Auth, Options, Role
from holdfast_gateway.render import clusters, door, endpoints, kserve, listeners, routes, sides, spare, tls
from holdfast_gateway.render.bootstrap import bootstrap
from holdfast_gateway.render.streams import STREAMS, streams
from holdfast_gateway.render.values import (
    Document,
    kserve_cluster,
    local_cluster,
    peer_cluster,
    service_cluster,
    stream_cluster,
)
from holdfast_gateway.state import Snapshot

BOOTSTRAP = "bootstrap.yaml"
CLUSTERS = "cds.json"
LISTENERS = "lds.json"
CLIENT_TABLE = "rds-client.json"
PEER_TABLE = "rds-peer.json"
OUTBOUND_TABLE = "rds-outbound.json"
ENDPOINTS_PREFIX = "eds-"
PRIVATE = frozenset({door.KEYS})
"""Files that hold secrets."""

Files = dict[str, Document]
"""File name → content, in the order of writing."""


def start_files(options: Options, directory: str) -> Files:
    """What Envoy needs before anything is known: no client and no peer port, so nobody counts on it yet."""
    return {
        CLUSTERS: discovery([]),
        LISTENERS: discovery([]),
        BOOTSTRAP: bootstrap(options, f"{directory}/{CLUSTERS}", f"{directory}/{LISTENERS}"),
    }


def files(snapshot: Snapshot, options: Options, directory: str) -> Files:
    """Everything but the bootstrap. `directory` is where Envoy will find the files: an absolute path."""
    known = snapshot.routes
    built: Files = {}
    cluster_list = []
    for cluster, hosts in all_clusters(snapshot, options, directory):
        built[endpoints_file(cluster["name"])] = discovery([hosts])
        cluster_list.append(cluster)
    if options.peer_tls:
        secrets = {name: discovery(held) for name, held in tls.secrets(options.peer_tls).items()}
        built = secrets | built
    by_key = {route.key: route for route in known}
    cluster_list += [spare.cluster(by_key[key], other) for key, other in spare.spares(known).items()]
    built[CLUSTERS] = discovery(cluster_list)
    built[CLIENT_TABLE] = discovery([routes.client_table(known, options, snapshot.tenants)])
    if options.auth is Auth.REQUIRED:
        built |= {name: discovery([each]) for name, each in door.resources(snapshot, options).items()}
    client = listeners.client(options, directory, f"{directory}/{CLIENT_TABLE}")
    if options.client_tls:
        built[tls.FRONT] = discovery(tls.front_secret(options.client_tls))
        client["filter_chains"][0]["transport_socket"] = tls.client_port(directory)
    ports = [client]
    if options.relay_port:
        built[OUTBOUND_TABLE] = discovery([routes.outbound_table(known, options)])
        built[STREAMS] = streams(known, snapshot, options)
        ports.append(listeners.outbound(options, f"{directory}/{OUTBOUND_TABLE}"))
    if options.role is Role.REGIONAL:
        built[PEER_TABLE] = discovery([routes.peer_table(known, snapshot, options)])
        peer = listeners.peer(options, f"{directory}/{PEER_TABLE}")
        if options.peer_tls:
            peer["filter_chains"][0]["transport_socket"] = tls.peer_port(directory)
        ports += [listeners.ready(known), peer]
    built[LISTENERS] = discovery(ports)
    return built


def all_clusters(snapshot: Snapshot, options: Options, directory: str) -> Iterator[tuple[Document, Document]]:
    """Every cluster with its hosts: of each service, and for the relay of each region."""
    for route in snapshot.routes:
        yield from clusters_of(route, snapshot, options, directory)
    if options.relay_port:
        hops = [hop for route in snapshot.routes for hop in endpoints.hops_in_order(route, snapshot, options)]
        # A region has one gateway, whichever service asks for it.
        for region, hop in sorted({hop.region: hop for hop in reversed(hops)}.items()):
            cluster = clusters.peer(region, options, f"{directory}/{endpoints_file(peer_cluster(region))}")
            yield to_peers(cluster, options, directory), endpoints.peer_endpoints(hop)


def clusters_of(
    route: Route, snapshot: Snapshot, options: Options, directory: str
) -> Iterator[tuple[Document, Document]]:
    """A service's clusters, each with its hosts."""
    if options.role is Role.REGIONAL and route.local:
        for revision in (None, *sides.apart(route, snapshot)):
            path = f"{directory}/{endpoints_file(local_cluster(route.key, revision))}"
            hosts = endpoints.local_endpoints(route, snapshot, revision)
            yield clusters.local(route, options, path, revision), hosts
            path = f"{directory}/{endpoints_file(kserve_cluster(route.key, revision))}"
            yield kserve.cluster(route, options, path, revision), kserve.endpoints(route, hosts, revision)
    path = f"{directory}/{endpoints_file(service_cluster(route.key))}"
    cluster = clusters.service(route, options, path)
    yield to_peers(cluster, options, directory), endpoints.service_endpoints(route, snapshot, options)
    if options.relay_port:
        path = f"{directory}/{endpoints_file(stream_cluster(route.key))}"
        cluster = clusters.stream(route, options, path)
        if options.peer_tls:
            cluster["transport_socket_matches"] = tls.to_stream(directory)
        yield cluster, endpoints.stream_endpoints(route, snapshot, options)


def files_of_a_service(options: Options) -> int:
    """How many files of its own a service has at most, while all its engines are of one revision."""
    route = Route(namespace="n", service="s", model="m", region="r")
    return sum(1 for _ in clusters_of(route, Snapshot((route,)), options, ""))


def to_peers(cluster: Document, options: Options, directory: str) -> Document:
    """The cluster with TLS, if gateways speak it."""
    return cluster | ({"transport_socket": tls.to_peers(directory)} if options.peer_tls else {})


def endpoints_file(cluster: str) -> str:
    """A file name for a cluster: readable, and unique even where two names read alike."""
    readable = re.sub(r"[^a-z0-9.-]+", "-", cluster.lower())[:80]
    return f"{ENDPOINTS_PREFIX}{readable}-{hashlib.sha256(cluster.encode()).hexdigest()[:8]}.json"


def discovery(resources: list[Document]) -> Document:
    """The envelope of every dynamic file."""
    return {"resources": resources}
