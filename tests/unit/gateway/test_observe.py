"""Kubernetes objects are read with suspicion: what is broken is reported and the last good version stays."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.unit.gateway.builders import config_map, pod, route

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
