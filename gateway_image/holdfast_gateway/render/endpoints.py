"""Cluster → hosts: this region's engines, and the regions in the order in which they shall be tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from holdfast.api.route import RegionTarget, Route, TrafficMode
from holdfast_gateway.options import Options, Role
from holdfast_gateway.render import sides, spare
from holdfast_gateway.render.values import (
    Document,
    endpoint,
    local_cluster,
    peer_cluster,
    service_cluster,
    socket_address,
    stream_cluster,
    typed,
)
from holdfast_gateway.state import Snapshot

SOCKET_MATCH = "envoy.transport_socket_match"
PLAIN_MATCH = {"plain": True}
"""What marks a host that is spoken to without TLS though the others of its cluster are not."""
ASSIGNMENT = "config.endpoint.v3.ClusterLoadAssignment"


@dataclass(frozen=True)
class Hop:
    """A way to one region's engines: the peer port of its gateway."""

    region: str
    addresses: tuple[str, ...]
    port: int
    weight: int
    percent: int = 100
    """Part of its share that the region gets now."""


def local_endpoints(route: Route, snapshot: Snapshot, revision: str | None = None) -> Document:
    """This region's engines, or those of one revision, all equal."""
    revisions = sides.engines(route, snapshot)
    chosen = sides.answering(route, snapshot) if revision is None else sides.of_revision(route, snapshot, revision)
    hosts = [
        sides.labelled(endpoint(socket_address(engine, route.engine_port)), revisions[engine]) for engine in chosen
    ]
    return assignment(local_cluster(route.key, revision), [{"lb_endpoints": hosts}])


def service_endpoints(route: Route, snapshot: Snapshot, options: Options) -> Document:
    """All regions' gateways: by priority, except where weights decide.

    They do at an edge in mode ActiveActive; and between the first two regions of a regional gateway, or of an edge
    in mode ActivePassive, while the first gets only a part of its share.
    """
    priorities, hops = prioritised(route, snapshot, options)
    stands_in = any(spare.is_spare(route, other) for other in snapshot.routes)
    name = spare.host_name(route) if stands_in else None
    localities = [locality(hop, priority, name) for hop, priority in zip(hops, priorities, strict=True)]
    return assignment(service_cluster(route.key), localities)


def prioritised(route: Route, snapshot: Snapshot, options: Options) -> tuple[list[int], list[Hop]]:
    """The ways to all regions, each with its priority."""
    hops = hops_in_order(route, snapshot, options)
    if options.role is Role.EDGE and route.mode is TrafficMode.ACTIVE_ACTIVE:
        return [0] * len(hops), hops
    return in_turn(hops)


def walk(route: Route, other: Route, options: Options) -> tuple[int, int]:
    """How retries walk all regions of a service and then those of another one: attempts before the next priority,
    enough for as many regions as share one, and retries in all."""
    first, then = ([*Counter(prioritised(each, Snapshot(), options)[0]).values()] for each in (route, other))
    attempts = max([*first, 1])
    return attempts, attempts * len(first) + max([*then, 1]) * len(then)


def stream_endpoints(route: Route, snapshot: Snapshot, options: Options) -> Document:
    """The relay first, then all that `service_endpoints` holds, a priority later."""
    relay = endpoint(socket_address(options.own_address, options.relay_port))
    own = {"priority": 0, "lb_endpoints": [{**relay, "metadata": {"filter_metadata": {SOCKET_MATCH: PLAIN_MATCH}}}]}
    regions = service_endpoints(route, snapshot, options)["endpoints"]
    later = [
        {
            **region,
            "priority": region["priority"] + 1,
            "lb_endpoints": [unchecked(each) for each in region["lb_endpoints"]],
        }
        for region in regions
    ]
    return assignment(stream_cluster(route.key), [own, *later])


def unchecked(host: Document) -> Document:
    """The host, taken for healthy: it is asked while the relay is dead, and a request that meets a dead one goes on."""
    return host | {"endpoint": host["endpoint"] | {"health_check_config": {"disable_active_health_check": True}}}


def peer_endpoints(hop: Hop) -> Document:
    """One region's gateway."""
    return assignment(peer_cluster(hop.region), [locality(replace(hop, weight=1), 0)])


def in_turn(hops: list[Hop]) -> tuple[list[int], list[Hop]]:
    """Priorities by place; a first region with a part of its share has the second beside it for the rest."""
    if len(hops) < 2 or hops[0].percent >= 100:
        return list(range(len(hops))), hops
    first, second, *rest = hops
    shared = [replace(first, weight=first.percent), replace(second, weight=100 - first.percent), *rest]
    return [0, 0, *range(1, len(hops) - 1)], shared


def hops_in_order(route: Route, snapshot: Snapshot, options: Options) -> list[Hop]:
    """The regions to try, most wanted first.

    A regional gateway tries its own engines first, through its own peer port. Regions of weight 0 and drained ones
    are left out, unless all are: then none is, since traffic that has nowhere to go stays where it is. A region
    whose name was never resolved keeps its place, without hosts.
    """
    own = route.region if options.role is Role.REGIONAL else None
    targets = [target for target in in_service(route) if target.name != own or route.local]
    targets.sort(key=lambda target: target.name != own)
    together = options.role is Role.EDGE and route.mode is TrafficMode.ACTIVE_ACTIVE
    hops = []
    for target in targets:
        addresses, port = snapshot.resolve(target.address), target.peer_port
        if target.name == own:
            addresses, port = (options.own_address,), options.peer_port
        weight = max(1, target.weight * target.percent // 100) if together else target.weight
        hops.append(Hop(target.name, addresses, port, weight, target.percent))
    return hops


def in_service(route: Route) -> Sequence[RegionTarget]:
    """The regions that may get traffic."""
    weighted = [target for target in route.regions if target.weight > 0 and target.percent > 0]
    return weighted or [target.model_copy(update={"weight": 100, "percent": 100}) for target in route.regions]


def locality(hop: Hop, priority: int, name: str | None = None) -> Document:
    """One region's gateway; several addresses of one name share the region's weight. `name` is what its hosts are
    called in requests that ask a service which stands in."""
    share = max(1, hop.weight // max(1, len(hop.addresses)))
    named = {} if name is None else {"hostname": name}
    hosts = [
        {"endpoint": {"address": socket_address(address, hop.port), **named}, "load_balancing_weight": share}
        for address in hop.addresses
    ]
    return {"locality": {"region": hop.region}, "priority": priority, "lb_endpoints": hosts}


def assignment(cluster: str, localities: list[Document]) -> Document:
    """The hosts of one cluster."""
    return typed(ASSIGNMENT, cluster_name=cluster, endpoints=localities)
