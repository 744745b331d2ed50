"""What several API servers say becomes one state; two claims to one model become one service and a report."""

from __future__ import annotations

from tests.unit.gateway.builders import US, route

from holdfast_gateway.state import Snapshot, SourceRoutes, agreed_routes, one_service_per_model


def says(*routes_of: object, reachable: bool = True) -> SourceRoutes:
    return SourceRoutes({made.key: made for made in routes_of}, reachable)  # type: ignore[attr-defined]


def test_the_first_service_by_key_keeps_a_model_that_two_claim() -> None:
    second, first = route("b", model="llama"), route("a", model="llama")
    served, conflicts = one_service_per_model([second, first, route("c")])
    assert [made.service for made in served] == ["a", "c"]
    assert [conflict.message for conflict in conflicts] == [
        "model 'llama' is claimed by default/a and default/b; default/a serves it"
    ]


def test_an_edge_knows_the_union_of_what_regions_know() -> None:
    assert set(agreed_routes([says(route("a")), says(route("b"))])) == {"default/a", "default/b"}


def test_the_version_that_most_regions_hold_wins_whoever_wrote_it() -> None:
    old = route(region="us-east", regions=(US,))
    new = route(region="eu-west"), route(region="ap-south", local=False)
    assert agreed_routes([says(old), says(new[0]), says(new[1])])["default/chat"] == new[0]


def test_what_each_region_runs_by_itself_does_not_split_the_vote() -> None:
    old = route(region="us-east", regions=(US,), routed=1)
    new = route(region="eu-west", routed=2), route(region="ap-south", routed=5)
    assert agreed_routes([says(old), says(new[0]), says(new[1])])["default/chat"] == new[0]


def test_a_region_that_cannot_be_reached_has_no_say_about_what_others_know() -> None:
    stale = [says(route(regions=(US,)), reachable=False)] * 2
    assert agreed_routes([*stale, says(route())])["default/chat"] == route()


def test_a_service_that_only_an_unreachable_region_knows_is_kept() -> None:
    assert set(agreed_routes([says(route("a"), reachable=False), says(route("b"))])) == {"default/a", "default/b"}


def test_only_peers_given_by_name_need_resolving() -> None:
    named = US.model_copy(update={"address": "us.example"})
    ipv6 = US.model_copy(update={"address": "2001:db8::1"})
    assert Snapshot((route(regions=(named, US, ipv6)),)).host_names() == {"us.example"}
