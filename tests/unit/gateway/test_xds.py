"""What Envoy is sent, and when: files, messages and the protocol, without an Envoy."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.unit.gateway.resources import served
from tests.unit.gateway.test_golden import CASES, DIRECTORY, built

from holdfast_gateway import files
from holdfast_gateway.envoy_api.messages import message
from holdfast_gateway.render.files import FOLLOWED_LISTENERS, LISTENERS
from holdfast_gateway.xds import server
from holdfast_gateway.xds.held import AT_ONCE as AT_ONCE_READ
from holdfast_gateway.xds.held import Held
from holdfast_gateway.xds.messages import CLUSTER, ENDPOINTS, IN_ORDER, SCOPE, TABLE, Resource, resource
from holdfast_gateway.xds.server import Discovery
from holdfast_gateway.xds.stream import AT_ONCE, Message, Stream

NAMES = st.sampled_from(["a", "b", "c"])
STATES = st.dictionaries(NAMES, st.sampled_from(["1", "2"]))


@pytest.mark.parametrize("name", CASES)
def test_every_resource_of_a_case_becomes_a_message_and_keeps_its_fields(name: str) -> None:
    for (kind, known), document in served(built(name, DIRECTORY)).items():
        made = resource(document)
        assert (made.kind.rpartition(".")[2], made.name) == (kind, known)
        unpacked = message(made.kind.rpartition("/")[2]).FromString(made.body.value)
        assert bool(unpacked.ListFields())


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"@type": TABLE, "name": "client/", "no_such_field": 1}, "no_such_field"),
        ({"@type": "type.googleapis.com/envoy.config.core.v3.Node", "name": "x"}, "none of"),
        ({"@type": TABLE}, "none of"),
        ({"@type": CLUSTER, "name": "c", "typed_extension_protocol_options": {"o": {"@type": "a/b.C"}}}, "b.C"),
    ],
)
def test_what_is_no_resource_is_refused_with_a_sentence(document: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        resource(document)


def cluster(name: str, seconds: int = 1) -> dict[str, Any]:
    return {"@type": CLUSTER, "name": name, "connect_timeout": f"{seconds}s"}


def put(folder: Path, name: str, *documents: dict[str, Any]) -> None:
    files.replace(folder / f"xds-{name}.json", json.dumps({"resources": documents}))


def look(held: Held) -> bool:
    return any([*held.refresh()])


def test_files_are_followed_and_only_what_differs_is_new(tmp_path: Path) -> None:
    held = Held(tmp_path)
    put(tmp_path, "one", cluster("a"), cluster("b"))
    (tmp_path / "listeners.json").write_text("not for here")
    assert look(held)
    first = dict(held.resources[CLUSTER])
    assert set(first) == {"a", "b"}
    assert not look(held)

    put(tmp_path, "one", cluster("a", 2), cluster("b"))
    assert look(held)
    assert held.resources[CLUSTER]["b"] is first["b"]
    assert held.resources[CLUSTER]["a"].version != first["a"].version

    (tmp_path / "xds-one.json").unlink()
    assert look(held)
    assert held.resources[CLUSTER] == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"resources": [{}]}', '{"resources": [{"@type": "x", "name": "y"}]}'])
def test_of_a_broken_file_what_it_held_last_stays(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    held = Held(tmp_path)
    put(tmp_path, "one", cluster("a"))
    look(held)
    files.replace(tmp_path / "xds-one.json", text)
    assert not look(held)
    assert set(held.resources[CLUSTER]) == {"a"}
    assert "xds-one.json cannot be read, what it held last stays" in caplog.text


def test_what_moves_from_one_file_to_another_is_never_gone(tmp_path: Path) -> None:
    held = Held(tmp_path)
    put(tmp_path, "one", cluster("a"))
    look(held)
    put(tmp_path, "two", cluster("a", 2))
    look(held)
    moved = held.resources[CLUSTER]["a"]
    put(tmp_path, "one")
    assert look(held)
    assert held.resources[CLUSTER] == {"a": moved}


def held_of(**kinds: dict[str, str]) -> dict[str, dict[str, Resource]]:
    """Kind → name → a resource of that version."""
    given = {CLUSTER: kinds.get("cluster", {}), ENDPOINTS: kinds.get("endpoints", {}), TABLE: kinds.get("table", {}),
             SCOPE: kinds.get("scope", {})}  # fmt: skip
    return {kind: {name: Resource(kind, name, version, None) for name, version in held.items()} for kind, held in
            given.items()}  # fmt: skip


def told(messages: list[Message]) -> list[tuple[str, list[str], list[str]]]:
    """What each message is about."""
    return [
        (each.kind.rpartition(".")[2], sorted(one.name for one in each.resources), sorted(each.removed))
        for each in messages
    ]


class Client:
    """An Envoy that takes up what it is sent."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.has: dict[str, dict[str, str]] = {kind: {} for kind in IN_ORDER}

    def forget(self, kind: str, names: set[str]) -> None:
        self.has[kind] = {name: version for name, version in self.has[kind].items() if name not in names}

    def read(self, held: dict[str, dict[str, Resource]]) -> list[Message]:
        messages = list(self.stream.due(held))
        for each in messages:
            self.has[each.kind].update((one.name, one.version) for one in each.resources)
            for name in each.removed:
                del self.has[each.kind][name]
        return messages


@given(st.lists(STATES, min_size=1, max_size=6), STATES)
def test_a_client_that_wants_all_has_all_after_each_change_whatever_it_had_before(
    states: list[dict[str, str]], before: dict[str, str]
) -> None:
    stream = Stream()
    client = Client(stream)
    client.has[CLUSTER] = dict(before)
    stream.take(CLUSTER, (), (), before)
    for state in states:
        client.read(held_of(cluster=state))
        assert client.has[CLUSTER] == state
        assert client.read(held_of(cluster=state)) == []


@given(st.lists(st.tuples(STATES, st.sets(NAMES), st.sets(NAMES)), max_size=6))
def test_a_client_has_what_it_wants_by_name_and_nothing_else(
    steps: list[tuple[dict[str, str], set[str], set[str]]],
) -> None:
    stream = Stream()
    client, wanted = Client(stream), set()
    for state, subscribe, unsubscribe in steps:
        stream.take(TABLE, tuple(sorted(subscribe)), tuple(sorted(unsubscribe)), {})
        wanted = (wanted - unsubscribe) | subscribe
        client.forget(TABLE, unsubscribe)
        client.read(held_of(table=state))
        assert client.has[TABLE] == {name: version for name, version in state.items() if name in wanted}


def test_things_come_before_what_names_them_and_go_after_it() -> None:
    stream = Stream()
    stream.take(CLUSTER, ("*",), (), {})
    stream.take(SCOPE, (), (), {})
    assert told([*stream.due(held_of(cluster={"a": "1"}, scope={"s": "1"}))]) == [
        ("Cluster", ["a"], []),
        ("ScopedRouteConfiguration", ["s"], []),
    ]
    assert told([*stream.due(held_of())]) == [("ScopedRouteConfiguration", [], ["s"]), ("Cluster", [], ["a"])]


def test_a_cluster_that_changed_gets_its_endpoints_again_and_a_new_one_when_it_asks() -> None:
    stream = Stream()
    stream.take(CLUSTER, (), (), {})
    assert told([*stream.due(held_of(cluster={"a": "1"}, endpoints={"a": "1", "b": "1"}))]) == [("Cluster", ["a"], [])]
    stream.take(ENDPOINTS, ("a",), (), {})
    held = held_of(cluster={"a": "1"}, endpoints={"a": "1", "b": "1"})
    assert told([*stream.due(held)]) == [("ClusterLoadAssignment", ["a"], [])]
    held = held_of(cluster={"a": "2"}, endpoints={"a": "1", "b": "1"})
    assert told([*stream.due(held)]) == [("Cluster", ["a"], []), ("ClusterLoadAssignment", ["a"], [])]


def test_what_is_given_up_while_it_is_taken_away_is_no_trouble() -> None:
    stream = Stream()
    stream.take(CLUSTER, ("a",), (), {})
    stream.take(SCOPE, ("s",), (), {})
    assert len([*stream.due(held_of(cluster={"a": "1"}, scope={"s": "1"}))]) == 2
    sending = stream.due(held_of())
    assert next(sending).removed == ("s",)
    stream.take(CLUSTER, (), ("a",), {})  # Envoy's word crosses ours
    assert [each.removed for each in sending] == [("a",)]
    assert not [*stream.due(held_of())]


def test_who_asks_for_all_hears_that_there_is_nothing_once() -> None:
    stream = Stream()
    stream.take(CLUSTER, (), (), {})
    assert told([*stream.due(held_of())]) == [("Cluster", [], [])]
    assert not [*stream.due(held_of())]


def test_who_asks_again_is_answered_again() -> None:
    stream = Stream()
    held = held_of(table={"t": "1"})
    stream.take(TABLE, ("t",), (), {})
    assert [*stream.due(held)]
    assert not [*stream.due(held)]
    stream.take(TABLE, ("t",), (), {})
    assert [*stream.due(held)]


def test_many_resources_travel_in_several_messages() -> None:
    stream = Stream()
    stream.take(CLUSTER, (), (), {})
    sent = [*stream.due(held_of(cluster={str(number): "1" for number in range(2 * AT_ONCE + 1)}))]
    assert [len(each.resources) for each in sent] == [AT_ONCE, AT_ONCE, 1]


async def test_listeners_are_passed_on_after_all_that_was_written_before_them(tmp_path: Path) -> None:
    served = Discovery(tmp_path)
    await served.look()
    assert not (tmp_path / FOLLOWED_LISTENERS).exists()
    for number in range(3 * AT_ONCE_READ):
        put(tmp_path, str(number), cluster(f"c{number}"))
    (tmp_path / LISTENERS).write_text("ports")
    looking = asyncio.create_task(served.look())
    while not looking.done():
        assert not (tmp_path / FOLLOWED_LISTENERS).exists()
        await asyncio.sleep(0)
    assert (tmp_path / FOLLOWED_LISTENERS).read_text() == "ports"
    assert len(served._held.resources[CLUSTER]) == 3 * AT_ONCE_READ


async def test_without_a_watch_changes_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Too many open files")

    monkeypatch.setattr(server, "awatch", refuse)
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.01)
    served = Discovery(tmp_path)
    following = asyncio.create_task(served.follow())
    put(tmp_path, "one", cluster("a"))
    for _ in range(1000):
        if served._held.resources[CLUSTER]:
            break
        await asyncio.sleep(0.01)
    following.cancel()
    assert served._held.resources[CLUSTER]
