"""Only differences are written."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.changes import Apply, Delete, changes, covers
from holdfast.domain.decide import decide
from holdfast.domain.observation import Ref

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


def stored(seen: Any) -> dict[Ref, dict[str, Any]]:
    """The wanted objects as an API server would give them back: with fields of its own."""
    result = {}
    for change in decide(seen).changes:
        assert isinstance(change, Apply)
        manifest = copy.deepcopy(dict(change.manifest))
        manifest["metadata"] |= {"uid": "u", "resourceVersion": "7"}
        manifest["status"] = {"observed": True}
        result[change.ref] = manifest
    return result


def test_everything_is_created_where_nothing_is(observe: Any) -> None:
    decided = decide(observe()).changes

    assert [change.ref.kind for change in decided] == ["ConfigMap", "Deployment", "Service", "PodDisruptionBudget"]
    assert all(isinstance(change, Apply) and change.created for change in decided)


def test_nothing_is_written_when_all_is_as_wanted(observe: Any) -> None:
    assert decide(observe(seen={"children": stored(observe())})).changes == ()


def test_a_changed_spec_rewrites_only_what_it_changes(observe: Any) -> None:
    children = stored(observe())

    decided = decide(observe(defaults={"replicas": {"min": 3}}, seen={"children": children})).changes

    assert [(change.ref.kind, change.created) for change in decided if isinstance(change, Apply)] == [
        ("Deployment", False)
    ]


def test_what_somebody_else_changed_is_taken_back(observe: Any) -> None:
    children = stored(observe())
    deployment = next(child for ref, child in children.items() if ref.kind == "Deployment")
    deployment["spec"]["replicas"] = 0

    assert [change.ref.kind for change in decide(observe(seen={"children": children})).changes] == ["Deployment"]


def test_what_is_no_longer_wanted_here_is_deleted_but_its_route_stays(observe: Any) -> None:
    children = stored(observe())

    decided = decide(observe(regions=[{"name": "eu-west"}], seen={"children": children})).changes

    assert {change.ref.kind for change in decided if isinstance(change, Delete)} == {
        "Deployment",
        "Service",
        "PodDisruptionBudget",
    }
    assert {change.ref.kind for change in decided if isinstance(change, Apply)} == {"ConfigMap"}


def test_quantities_that_the_api_server_rewrote_are_no_difference() -> None:
    assert covers({"cpu": "1", "memory": "2Gi"}, {"cpu": "1000m", "memory": "2048Mi"})
    assert covers({"cpu": "1"}, {"cpu": 1})
    assert not covers({"cpu": "1"}, {"cpu": "100m"})


@given(JSON)
def test_every_value_covers_itself(value: Any) -> None:
    assert covers(value, value)


@given(JSON, st.dictionaries(st.text(max_size=4), JSON, max_size=3))
def test_fields_of_others_are_left_alone(value: Any, extra: dict[str, Any]) -> None:
    assert covers({**extra, "ours": value}, {"ours": value})


@given(JSON)
def test_a_field_that_is_not_there_is_a_difference(value: Any) -> None:
    assert not covers({}, {"ours": value})


@given(st.integers(), st.integers())
def test_two_numbers_cover_each_other_only_if_they_are_equal(one: int, other: int) -> None:
    assert covers([one], [other]) == (one == other)


def test_what_was_applied_is_not_applied_again() -> None:
    wanted = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}, "data": {"k": "v"}}
    ]
    [first] = changes(wanted, {})
    assert isinstance(first, Apply)
    assert changes(wanted, {first.ref: first.manifest}) == []
