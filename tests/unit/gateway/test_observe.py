"""Kubernetes objects are read with suspicion: what is broken is reported and the last good version stays."""

from __future__ import annotations

import json
import random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.unit.gateway.builders import config_map, pod, route

from holdfast.api.names import REVISION_LABEL
from holdfast.api.route import RevisionShare
from holdfast_gateway.observe import read_routes, see_engines


def test_a_route_is_read_from_its_config_map() -> None:
    read = read_routes([config_map(route())], {})
    assert read.by_key() == {"default/chat": route()}
    assert read.problems == ()


BROKEN = ["", "{", "[]", "7", "{}", json.dumps({"namespace": "default"}), json.dumps(route(namespace="x").wire())]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_route_is_reported_and_its_last_good_version_stays(text: str) -> None:
    read = read_routes([config_map(text)], {"default/chat-route": route()})
    assert read.by_key() == {"default/chat": route()}
    assert "default/chat-route" in read.problems[0]
    assert "last good version stays" in read.problems[0]


def test_a_broken_route_without_a_good_version_is_left_out_and_harms_no_other() -> None:
    read = read_routes([config_map("{", name="a"), config_map(route("b"), name="b")], {})
    assert set(read.by_key()) == {"default/b"}
    assert "left out" in read.problems[0]


def test_a_route_whose_config_map_is_gone_is_gone() -> None:
    assert read_routes([], {"default/chat-route": route()}).routes == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*route().wire(), "x"]), inner),
    max_leaves=8,
)


@given(JSON | st.text())
def test_no_content_of_a_config_map_stops_the_agent(content: object) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    read = read_routes([config_map(text)], {})
    assert len(read.routes) + len(read.problems) == 1


def test_a_config_map_without_data_is_reported() -> None:
    assert len(read_routes([config_map("x") | {"data": None}], {}).problems) == 1


def test_engines_that_have_started_are_found_by_service() -> None:
    seen = see_engines([pod("a", "10.0.0.2"), pod("b", "10.0.0.1"), pod("c", "10.0.0.3", service="code")])
    assert seen.addresses == {"default/chat": ("10.0.0.1", "10.0.0.2"), "default/code": ("10.0.0.3",)}


def test_engines_without_an_address_or_still_starting_or_over_are_left_out() -> None:
    terminating, finished = pod("d"), pod("e")
    terminating["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    finished["status"]["phase"] = "Failed"
    unborn = pod("f") | {"status": {"phase": "Pending"}}
    loading = pod("g", started=False)
    seen = see_engines([pod("h", ip=None), terminating, finished, unborn, loading], frozenset({"uid-d", "uid-e"}))
    assert seen.addresses == {}


def test_an_engine_that_had_started_stays_while_its_kubelet_doubts_it() -> None:
    """The kubelet forgets who had started when it restarts itself; only Envoy's checks may eject."""
    doubted = pod("a", started=False)
    assert see_engines([doubted], frozenset({"uid-a"})).addresses == {"default/chat": ("10.0.0.1",)}


CHAT = "default/chat"


def taken(pods: list[dict[str, Any]], routed: int | None) -> set[str]:
    """Names of the engines that take requests."""
    known = frozenset(each["metadata"]["uid"] for each in pods)
    seen = see_engines(pods, known, {CHAT: route(routed=routed)})
    by_address = {each["status"]["podIP"]: each["metadata"]["name"] for each in pods}
    return {by_address[address] for address in seen.addresses.get(CHAT, ())}


def engines(*ready: int | None) -> list[dict[str, Any]]:
    """Engines a, b, c, … that have been ready since these minutes."""
    return [
        pod(name, f"10.0.0.{at}", ready=since) for at, (name, since) in enumerate(zip("abcde", ready, strict=False), 1)
    ]


def test_only_as_many_engines_as_the_route_says_take_requests_and_all_where_it_says_nothing() -> None:
    assert taken(engines(3, 1, 2), 2) == {"b", "c"}
    assert taken(engines(3, 1, 2), None) == {"a", "b", "c"}
    assert taken(engines(3, 1, 2), 7) == {"a", "b", "c"}


def test_with_shares_each_revision_says_itself_how_many_of_its_engines_take_requests() -> None:
    pods = engines(3, 1, 2, 1, 2)
    for each, revision in zip(pods, ("new", "new", "old", "old", "older"), strict=True):
        each["metadata"]["labels"][REVISION_LABEL] = revision
    shares = (RevisionShare(name="new", weight=5), RevisionShare(name="old", weight=95, routed=1))
    seen = see_engines(pods, frozenset(), {CHAT: route(revisions=shares, routed=0)})
    assert seen.revisions[CHAT] == {
        "10.0.0.1": "new", "10.0.0.2": "new", "10.0.0.4": "old", "10.0.0.5": "older",
    }  # fmt: skip
    assert seen.addresses[CHAT] == tuple(seen.revisions[CHAT])
    assert len(seen.uids) == 5


def test_an_engine_whose_pod_names_no_revision_has_none() -> None:
    assert see_engines([pod("a")]).revisions == {CHAT: {}}


def test_engines_that_are_equally_long_ready_take_requests_by_age_and_then_by_name() -> None:
    younger, *others = engines(1, 1, 1)
    younger["metadata"]["creationTimestamp"] = "2030-01-01T00:00:01Z"
    assert taken([younger, *reversed(others)], 1) == {"b"}
    assert taken([younger, *reversed(others)], 2) == {"b", "c"}


def test_the_number_of_one_service_says_nothing_about_another() -> None:
    pods = [pod("a", "10.0.0.1", ready=1), pod("b", "10.0.0.2", service="code"), pod("c", "10.0.0.3", service="code")]
    seen = see_engines(pods, frozenset(), {CHAT: route(routed=1)})
    assert seen.addresses == {CHAT: ("10.0.0.1",), "default/code": ("10.0.0.2", "10.0.0.3")}


def test_a_warm_engine_takes_the_place_of_one_that_is_lost_and_keeps_it_when_that_comes_back() -> None:
    assert taken(engines(1, 2, 3), 2) == {"a", "b"}
    assert taken(engines(None, 2, 3), 2) == {"b", "c"}
    assert taken(engines(4, 2, 3), 2) == {"b", "c"}


def test_a_warm_engine_takes_the_place_of_one_that_terminates() -> None:
    first, *others = engines(1, 2, 3)
    first["metadata"]["deletionTimestamp"] = "2030-01-01T00:30:00Z"
    assert taken([first, *others], 2) == {"b", "c"}


def test_while_fewer_engines_look_ready_than_are_to_take_requests_all_are_left_to_envoy() -> None:
    """A node that does not report makes all of its engines look unready."""
    assert taken(engines(None, None, None), 2) == {"a", "b", "c"}
    assert taken(engines(1, None, None), 2) == {"a", "b", "c"}


def test_warm_engines_are_known_to_have_started() -> None:
    pods = engines(1, 2)
    assert see_engines(pods, frozenset(), {CHAT: route(routed=1)}).uids == {"uid-a", "uid-b"}


READY = st.lists(st.none() | st.integers(0, 3), max_size=5)


@given(READY, st.none() | st.integers(0, 4), st.randoms())
def test_all_gateways_choose_alike_and_never_fewer_than_the_route_says(
    ready: list[int | None], routed: int | None, order: random.Random
) -> None:
    pods = engines(*ready)
    shuffled = order.sample(pods, len(pods))

    found = taken(pods, routed)

    assert taken(shuffled, routed) == found
    assert len(found) >= min(len(pods), len(pods) if routed is None else routed)
    if routed is not None and sum(since is not None for since in ready) >= routed:
        assert len(found) == routed


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(1, 4), st.data())
def test_the_loss_of_one_ready_engine_changes_no_other_engines_part(
    ready: list[int], routed: int, data: st.DataObject
) -> None:
    pods = engines(*ready)
    lost = data.draw(st.sampled_from(pods))["metadata"]["name"]

    before, after = taken(pods, routed), taken([each for each in pods if each["metadata"]["name"] != lost], routed)

    assert before - {lost} <= after
