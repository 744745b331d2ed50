"""How a split is written down: slots, clusters, and which engines count."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import accumulate
from typing import Any

import hypothesis.strategies as st
from hypothesis import given
from tests.unit.gateway.builders import US, route
from tests.unit.gateway.resources import CLUSTER, ENDPOINTS, TABLE, changed, of_kind, table

from holdfast.api.route import RevisionShare, Route
from holdfast_gateway.options import Options, Role
from holdfast_gateway.render import sides
from holdfast_gateway.render.files import files
from holdfast_gateway.state import Snapshot, SourceRoutes, agreed_routes

REGIONAL = Options(role=Role.REGIONAL)
RUNS = {"10.0.0.1": "new", "10.0.0.2": "old", "10.0.0.3": "old"}


def shared(**weights: int) -> Route:
    return route(revisions=tuple(RevisionShare(name=name, weight=weight) for name, weight in weights.items()))


def snapshot(made: Route, runs: dict[str, str] | None = None) -> Snapshot:
    found = RUNS if runs is None else runs
    known = {address: revision for address, revision in found.items() if revision}
    return Snapshot((made,), {made.key: tuple(found)}, revisions={made.key: known})


def local_clusters(seen: Snapshot) -> set[str]:
    built = files(seen, REGIONAL, "/d")
    names = {cluster["name"] for cluster in of_kind(built, CLUSTER)}
    return {name.removeprefix("local/default/chat") for name in names if name.startswith("local/")}


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6).filter(any))
def test_every_slot_belongs_to_one_share_and_each_gets_its_part(weights: list[int]) -> None:
    found = sides.slots(weights)
    assert sum(found) == sides.SLOTS
    assert all(abs(got - sides.SLOTS * weight / sum(weights)) <= 1 for got, weight in zip(found, weights, strict=True))


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 100))
def test_a_first_share_that_grows_keeps_all_its_slots(one: int, other: int, scale: int) -> None:
    less, more = sorted((one, other))
    assert sides.slots([less, 100 - less])[0] <= sides.slots([more, 100 - more])[0]
    assert sides.slots([less, 100 - less]) == sides.slots([less * scale, (100 - less) * scale])


@given(st.lists(st.integers(1, 50), min_size=3, max_size=5), st.integers(0, 10))
def test_a_border_moves_only_if_what_is_before_it_changes(weights: list[int], moved: int) -> None:
    moved = min(moved, weights[-2])
    after = [*weights[:-2], weights[-2] - moved, weights[-1] + moved]
    borders, now = ([*accumulate(sides.slots(each))] for each in (weights, after))
    assert borders[:-2] == now[:-2]


def test_engines_of_one_revision_have_one_cluster_and_of_two_one_each_beside_that_of_all() -> None:
    assert local_clusters(snapshot(route(), {"10.0.0.1": "new"})) == {""}
    assert local_clusters(snapshot(route(), {"10.0.0.1": ""})) == {""}
    assert local_clusters(snapshot(route())) == {"", "/new", "/old"}
    assert local_clusters(snapshot(shared(new=100), {"10.0.0.1": "new"})) == {"", "/new"}
    assert local_clusters(snapshot(shared(next=5, old=95))) == {"", "/new", "/next", "/old"}


def test_engines_of_a_revision_without_weight_get_nothing_and_make_no_region_ready() -> None:
    for made in (shared(new=0, old=100), shared(old=100)):
        assert sides.answering(made, snapshot(made)) == ["10.0.0.2", "10.0.0.3"]
    for made in (route(), shared(new=0, old=0)):
        assert sides.answering(made, snapshot(made)) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def peer_routes(seen: Snapshot) -> list[dict[str, Any]]:
    return table(files(seen, REGIONAL, "/d"), "peer", "default/chat")


def test_a_side_with_a_single_engine_is_not_asked_again_here() -> None:
    def retries(seen: Snapshot) -> set[int]:
        actions = [each["route"] for each in peer_routes(seen) if "weighted_clusters" in each.get("route", {})]
        return {action["retry_policy"]["num_retries"] for action in actions}

    made = shared(new=5, old=95)
    assert retries(snapshot(made)) == {0}
    assert retries(snapshot(made, RUNS | {"10.0.0.4": "new"})) == {2}
    assert retries(snapshot(made, {"10.0.0.2": "old", "10.0.0.3": "old"})) == {2}


def test_any_side_answers_after_as_many_attempts_as_regions_are_in_service() -> None:
    def starts(made: Route) -> set[int]:
        headers = [header for each in peer_routes(snapshot(made)) for header in each["match"].get("headers", [])]
        return {header["range_match"]["start"] for header in headers if "range_match" in header}

    made = shared(new=5, old=95)
    assert starts(made) == {4}
    assert starts(made.model_copy(update={"regions": (US,)})) == {2}
    drained = US.model_copy(update={"percent": 0})
    assert starts(made.model_copy(update={"regions": (drained, *made.regions[1:])})) == {3}


def test_an_edge_takes_routes_as_equal_whose_regions_share_differently() -> None:
    one, other = shared(new=5, old=95), shared(new=0, old=100)
    newer = other.model_copy(update={"max_resumes": 7})
    sources = [SourceRoutes({each.key: each}, reachable=True) for each in (newer, one, other)]
    assert agreed_routes(sources) == {one.key: one}


def test_a_changed_revision_of_an_engine_changes_no_listener_and_a_changed_weight_the_routes_alone() -> None:
    before = files(snapshot(shared(new=5, old=95)), REGIONAL, "/d")
    after = files(snapshot(shared(new=25, old=75)), REGIONAL, "/d")
    assert changed(before, after) == {(TABLE, "peer/default/chat")}
    moved = replace(snapshot(shared(new=5, old=95)), revisions={"default/chat": RUNS | {"10.0.0.2": "new"}})
    found = changed(before, files(moved, REGIONAL, "/d"))
    assert all(kind == ENDPOINTS or (kind, name) == (TABLE, "peer/default/chat") for kind, name in found)


def client_actions(made: Route) -> list[dict[str, Any]]:
    routes = table(files(snapshot(made), REGIONAL, "/d"), "client", "default/chat")
    return [each["route"] for each in routes if "route" in each]


def test_nothing_is_asked_twice_by_default_or_while_revisions_share_the_requests() -> None:
    for made in (route(), shared(new=5, old=95).model_copy(update={"hedge_after": timedelta(seconds=2)})):
        assert not any("hedge_policy" in action for action in client_actions(made))
    streams, others, *by_kserve = client_actions(route(hedge_after=timedelta(seconds=2)))
    assert not any("hedge_policy" in action for action in (streams, *by_kserve))
    assert "per_try_timeout" not in streams["retry_policy"]
    assert others["retry_policy"]["per_try_timeout"] == "2s"
