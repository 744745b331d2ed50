"""Properties of Envoy's files that hold for all routes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
from hypothesis import given
from tests.unit.gateway.builders import AP, EU, US, route
from tests.unit.gateway.resources import CLUSTER, ENDPOINTS, SCOPE, TABLE, changed, of_kind, served, tables

from holdfast.api.route import Affinity, EngineProtocol, RegionTarget, Route, TrafficMode
from holdfast_gateway.options import Auth, Options, Role
from holdfast_gateway.render.endpoints import service_endpoints, walk
from holdfast_gateway.render.files import LISTENERS, Files, Renderer, files, service_file
from holdfast_gateway.render.spare import spares
from holdfast_gateway.render.values import peer_cluster, seconds
from holdfast_gateway.state import Snapshot, one_service_per_model
from holdfast_gateway.tenants import PriorityClass, Settings, Tenant

REGIONAL = Options(role=Role.REGIONAL)
EDGE = Options(role=Role.EDGE)
RELAYED = Options(role=Role.REGIONAL, relay_port=9904)
RELAYED_EDGE = Options(role=Role.EDGE, relay_port=9904)
GUARDED = Options(role=Role.REGIONAL, relay_port=9904, auth=Auth.REQUIRED)
ALL = [REGIONAL, EDGE, RELAYED, RELAYED_EDGE, GUARDED]
NAMES = ["us-east", "eu-west", "ap-south", "sa-north"]
ADDRESSES = {name: f"192.0.2.{number}" for number, name in enumerate(NAMES, 1)}


@st.composite
def routes(draw: st.DrawFn) -> Route:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    weights = st.sampled_from([0, 1, 25, 100])
    return Route(
        namespace=draw(st.sampled_from(["default", "team"])),
        service=draw(st.sampled_from(["chat", "code", "embed"])),
        model=draw(st.sampled_from(["llama", "org/Llama-3 8B", "mistral"])),
        region=draw(st.sampled_from(names)),
        local=draw(st.booleans()),
        engine_protocol=draw(st.sampled_from(EngineProtocol)),
        mode=draw(st.sampled_from(TrafficMode)),
        fallback=draw(st.sampled_from([None, "chat", "code", "nobody"])),
        affinity=draw(st.sampled_from([None, Affinity()])),
        regions=tuple(RegionTarget(name=name, address=ADDRESSES[name], weight=draw(weights)) for name in names),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    served, _ = one_service_per_model({made.key: made for made in draw(st.lists(routes(), max_size=4))}.values())
    engines = st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]), unique=True)
    return Snapshot(served, {made.key: tuple(draw(engines)) for made in served}, tenants=draw(tenants()))


@st.composite
def tenants(draw: st.DrawFn) -> tuple[Tenant, ...]:
    names = draw(st.lists(st.sampled_from(["acme", "team.b", "c"]), unique=True))
    models = st.none() | st.lists(st.sampled_from(["llama", "mistral", "none"])).map(tuple)
    settings = st.builds(Settings, models=models, priority=st.sampled_from(PriorityClass))
    return tuple(Tenant(name=name, keys=(f"key-of-{name}",), settings=draw(settings)) for name in sorted(names))


def find(value: object, key: str) -> Iterator[Any]:
    """Every value under this key, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from find(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from find(inner, key)


def hosts(built: Files, cluster: str) -> list[tuple[int, str, str, int, int]]:
    """(priority, region, address, port, weight) of a cluster's hosts."""
    assignment = served(built).get((ENDPOINTS, cluster), {"endpoints": []})
    return [
        (
            place.get("priority", 0),
            place.get("locality", {}).get("region", ""),
            host["endpoint"]["address"]["socket_address"]["address"],
            host["endpoint"]["address"]["socket_address"]["port_value"],
            host.get("load_balancing_weight", 1),
        )
        for place in assignment["endpoints"]
        for host in place["lb_endpoints"]
    ]


@given(snapshots(), st.sampled_from(ALL))
def test_every_cluster_that_a_route_names_exists(snapshot: Snapshot, options: Options) -> None:
    built = files(snapshot, options, "/d")
    known = {cluster["name"] for cluster in of_kind(built, CLUSTER)} | {"ready"}
    assert set(find(of_kind(built, TABLE), "cluster")) <= known


@given(snapshots(), st.sampled_from(ALL))
def test_every_cluster_has_hosts_and_every_table_a_value_that_leads_to_it(snapshot: Snapshot, options: Options) -> None:
    built = files(snapshot, options, "/d")
    clusters = {cluster["name"] for cluster in of_kind(built, CLUSTER) if cluster.get("type") == "EDS"}
    assert clusters == {assignment["cluster_name"] for assignment in of_kind(built, ENDPOINTS)}
    meant = [each["route_configuration_name"] for each in of_kind(built, SCOPE)]
    assert sorted(meant) == sorted(each["name"] for each in of_kind(built, TABLE))


@given(snapshots(), snapshots(), st.sampled_from(ALL))
def test_what_is_made_after_something_else_is_the_same_as_made_at_once(
    first: Snapshot, second: Snapshot, options: Options
) -> None:
    """Nothing that a file depends on is missing from what says whether it is made anew."""
    renderer = Renderer(options, "/d", lambda _, document: document)
    renderer.files(first)
    assert renderer.files(second) == files(second, options, "/d")
    mixed = Snapshot(second.routes, first.engines, first.addresses, first.tenants, first.issuers)
    assert renderer.files(mixed) == files(mixed, options, "/d")


@given(snapshots(), st.sampled_from(ALL))
def test_a_change_of_one_service_leaves_the_documents_of_all_others_as_they_are(
    snapshot: Snapshot, options: Options
) -> None:
    renderer = Renderer(options, "/d", lambda _, document: document)
    before = renderer.files(snapshot)
    if not snapshot.routes:
        return
    route, *others = snapshot.routes
    moved = route.model_copy(update={"max_resumes": 7, "fallback": None})
    after = renderer.files(replace(snapshot, routes=(moved, *others)))
    near = {service_file(each.key) for each in snapshot.routes if each.fallback or each is route}
    near |= {service_file(f"{each.namespace}/{each.fallback}") for each in snapshot.routes}
    assert all(after[service_file(each.key)] is before[service_file(each.key)] for each in others
               if service_file(each.key) not in near)  # fmt: skip
    assert after[LISTENERS] is before[LISTENERS]


@given(snapshots(), st.sampled_from(ALL))
def test_every_file_that_is_named_is_written_before_the_one_that_names_it(snapshot: Snapshot, options: Options) -> None:
    written: set[str] = set()
    for name, document in files(snapshot, options, "/d").items():
        named = {source["path"].removeprefix("/d/") for source in find(document, "path_config_source")}
        assert named <= written
        written.add(name)


@given(snapshots())
def test_the_peer_port_leads_to_engines_of_this_region_only(snapshot: Snapshot) -> None:
    built = files(snapshot, REGIONAL, "/d")
    for cluster in find(tables(built, "peer"), "cluster"):
        assert cluster == "ready" or cluster.startswith(("local/", "kserve/"))
    for made in snapshot.routes:
        for kind in ("local", "kserve"):
            addresses = {address for _, _, address, _, _ in hosts(built, f"{kind}/{made.key}")}
            assert addresses <= set(snapshot.engines[made.key])


@given(snapshots(), st.sampled_from(ALL))
def test_every_region_in_service_is_a_host_exactly_once(snapshot: Snapshot, options: Options) -> None:
    built = files(snapshot, options, "/d")
    for made in snapshot.routes:
        wanted = [target.name for target in made.regions if target.weight > 0]
        wanted = wanted or [target.name for target in made.regions]
        if options.role is Role.REGIONAL and not made.local:
            wanted = [name for name in wanted if name != made.region]
        assert sorted(region for _, region, *_ in hosts(built, f"service/{made.key}")) == sorted(wanted)


@given(snapshots())
def test_a_regional_gateway_tries_one_region_after_the_other_its_own_first(snapshot: Snapshot) -> None:
    built = files(snapshot, REGIONAL, "/d")
    for made in snapshot.routes:
        found = hosts(built, f"service/{made.key}")
        assert [priority for priority, *_ in found] == list(range(len(found)))
        own = [priority for priority, region, *_ in found if region == made.region]
        assert own in ([], [0])
        order = [target.name for target in made.regions]
        others = [region for _, region, *_ in found if region != made.region]
        assert others == sorted(others, key=order.index)


@given(snapshots(), st.sampled_from(ALL))
def test_no_route_has_a_time_out_per_try_and_every_cluster_has_raised_breakers(
    snapshot: Snapshot, options: Options
) -> None:
    built = files(snapshot, options, "/d")
    assert not list(find(built, "per_try_timeout"))
    for cluster in of_kind(built, CLUSTER):
        if cluster["name"].startswith("spare/"):
            continue  # of other clusters, whose breakers count
        thresholds = cluster["circuit_breakers"]["thresholds"]
        assert {limit["priority"] for limit in thresholds} == {"DEFAULT", "HIGH"}
        assert all(limit["max_retries"] > 1000 for limit in thresholds)


@given(snapshots(), st.sampled_from(ALL))
def test_endpoints_change_endpoints_and_local_retries_only(snapshot: Snapshot, options: Options) -> None:
    """Else a new engine would rebuild a cluster or a listener and cut connections."""
    before = files(snapshot, options, "/d")
    after = files(replace(snapshot, engines={}), options, "/d")
    assert all(kind == ENDPOINTS or name.startswith("peer/") for kind, name in changed(before, after))


@given(snapshots(), snapshots())
def test_neither_services_nor_tenants_change_the_listeners(first: Snapshot, second: Snapshot) -> None:
    def carriers(snapshot: Snapshot) -> list[dict[str, Any]]:
        return list(files(snapshot, GUARDED, "/d")[LISTENERS]["resources"])

    assert carriers(first) == carriers(second)


def test_only_engines_that_speak_http1_are_spoken_to_without_pings() -> None:
    built = files(Snapshot((route(engine_protocol=EngineProtocol.HTTP1),)), REGIONAL, "/d")
    pings = {cluster["name"]: bool(list(find(cluster, "connection_keepalive"))) for cluster in of_kind(built, CLUSTER)}
    assert pings == {"local/default/chat": False, "kserve/default/chat": True, "service/default/chat": True}


def test_an_edge_shares_traffic_by_weight_when_all_regions_are_active() -> None:
    built = files(Snapshot((route(),)), EDGE, "/d")
    assert hosts(built, "service/default/chat") == [
        (0, "us-east", US.address, 8081, 100),
        (0, "eu-west", EU.address, 8081, 100),
        (0, "ap-south", AP.address, 9081, 50),
    ]


def test_an_edge_tries_regions_in_order_when_one_is_active() -> None:
    built = files(Snapshot((route(mode=TrafficMode.ACTIVE_PASSIVE),)), EDGE, "/d")
    assert [host[:2] for host in hosts(built, "service/default/chat")] == [
        (0, "us-east"),
        (1, "eu-west"),
        (2, "ap-south"),
    ]


def test_a_region_without_engines_forwards_to_the_others() -> None:
    built = files(Snapshot((route(local=False),)), REGIONAL, "/d")
    assert [host[:2] for host in hosts(built, "service/default/chat")] == [(0, "eu-west"), (1, "ap-south")]
    assert not any("local/" in cluster["name"] for cluster in of_kind(built, CLUSTER))


def test_a_name_with_several_addresses_shares_its_regions_weight_and_one_without_keeps_its_place() -> None:
    named = US.model_copy(update={"address": "us.example"}), EU.model_copy(update={"address": "eu.example"})
    made = route(regions=(*named, AP), mode=TrafficMode.ACTIVE_PASSIVE)
    snapshot = Snapshot((made,), addresses={"us.example": ("192.0.2.8", "192.0.2.9")})
    assert hosts(files(snapshot, EDGE, "/d"), "service/default/chat") == [
        (0, "us-east", "192.0.2.8", 8081, 50),
        (0, "us-east", "192.0.2.9", 8081, 50),
        (2, "ap-south", AP.address, 9081, 50),
    ]


def test_retries_within_a_region_are_bounded_by_its_engines() -> None:
    def retries(engines: int) -> int:
        snapshot = Snapshot((route(),), {"default/chat": tuple(f"10.0.0.{number}" for number in range(engines))})
        (policy,) = set(find(tables(files(snapshot, REGIONAL, "/d"), "peer"), "num_retries"))
        return int(policy)

    assert [retries(engines) for engines in (0, 1, 2, 3, 9)] == [0, 0, 2, 2, 2]


def test_durations_have_no_needless_digits() -> None:
    assert [seconds(value) for value in (0.25, 1, 900.0, 0, 10)] == ["0.25s", "1s", "900s", "0s", "10s"]


def priorities(route_: Route, options: Options) -> list[tuple[str, int, int]]:
    """(region, priority, weight) of every way to the service's regions."""
    document = service_endpoints(route_, Snapshot((route_,)), options)
    return [
        (each["locality"]["region"], each["priority"], each["lb_endpoints"][0]["load_balancing_weight"])
        for each in document["endpoints"]
    ]


def at(percent: int, target: RegionTarget) -> RegionTarget:
    return target.model_copy(update={"percent": percent})


def test_a_drained_region_is_left_out_by_its_own_gateway_too() -> None:
    drained = route(regions=(at(0, US), EU, AP))

    assert [name for name, _, _ in priorities(drained, REGIONAL)] == ["eu-west", "ap-south"]
    assert [name for name, _, _ in priorities(drained, EDGE)] == ["eu-west", "ap-south"]


def test_a_region_that_ramps_shares_with_the_next_one() -> None:
    ramping = route(regions=(at(25, US), EU, AP))

    assert priorities(ramping, REGIONAL) == [("us-east", 0, 25), ("eu-west", 0, 75), ("ap-south", 1, 50)]
    assert priorities(ramping, EDGE) == [("us-east", 0, 25), ("eu-west", 0, 100), ("ap-south", 0, 50)]


def test_with_every_region_drained_traffic_stays_where_it_is() -> None:
    drained = route(regions=(at(0, US), at(0, EU), at(0, AP)))

    assert [name for name, _, _ in priorities(drained, REGIONAL)] == ["us-east", "eu-west", "ap-south"]


@given(snapshots(), st.sampled_from([RELAYED, RELAYED_EDGE]))
def test_streams_go_to_the_relay_and_while_it_is_dead_where_other_requests_go(
    snapshot: Snapshot, options: Options
) -> None:
    built = files(snapshot, options, "/d")
    for made in snapshot.routes:
        relay, *behind = hosts(built, f"stream/{made.key}")
        assert relay == (0, "", "127.0.0.1", 9904, 1)
        assert behind == [(priority + 1, *host) for priority, *host in hosts(built, f"service/{made.key}")]


@given(snapshots(), st.sampled_from([RELAYED, RELAYED_EDGE]))
def test_the_relay_can_ask_each_region_that_it_is_told_of_and_is_told_of_all_in_service(
    snapshot: Snapshot, options: Options
) -> None:
    built = files(snapshot, options, "/d")
    known = {cluster["name"] for cluster in of_kind(built, CLUSTER)}
    for made in snapshot.routes:
        told = built["streams.json"]["services"][made.key]["regions"]
        assert {peer_cluster(region) for region in told} <= known
        assert sorted(told) == sorted(region for _, region, *_ in hosts(built, f"service/{made.key}"))
        for region in told:
            (way,) = hosts(built, peer_cluster(region))
            assert way[2] in ("127.0.0.1", ADDRESSES[region])


def test_without_a_relay_streams_are_requests_like_others() -> None:
    built = files(Snapshot((route(),)), REGIONAL, "/d")
    assert "streams.json" not in built
    assert not [name for kind, name in served(built) if kind == CLUSTER and name.startswith(("stream/", "peer/"))]
    assert not tables(built, "outbound")
    assert "bool_match" not in str(tables(built, "client"))


def test_only_the_relay_is_spoken_to_in_plain_where_gateways_speak_tls() -> None:
    tls = Options(role=Role.REGIONAL, relay_port=9904, peer_tls="/tls")
    for cluster in of_kind(files(Snapshot((route(),)), tls, "/d"), CLUSTER):
        if cluster["name"].startswith("stream/"):
            relay, peers = cluster["transport_socket_matches"]
            assert relay["transport_socket"]["name"] == "envoy.transport_sockets.raw_buffer"
            assert (peers["match"], peers["transport_socket"]["name"]) == ({}, "envoy.transport_sockets.tls")
        elif not cluster["name"].startswith(("local/", "kserve/")):
            assert cluster["transport_socket"]["name"] == "envoy.transport_sockets.tls"


@given(snapshots(), st.sampled_from(ALL))
def test_retries_reach_a_stand_in_only_after_every_region_of_the_service(snapshot: Snapshot, options: Options) -> None:
    others = spares(snapshot.routes)
    for made in snapshot.routes:
        if (other := others.get(made.key)) is None:
            continue
        attempts, retries = walk(made, other, options)
        shared = Counter(priorities_of(made, options))
        assert attempts >= max(shared.values(), default=1)
        assert retries + 1 > attempts * len(shared) + len(priorities_of(other, options)) / attempts


def priorities_of(made: Route, options: Options) -> list[int]:
    return [priority for _, priority, _ in priorities(made, options)]
