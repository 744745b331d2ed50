"""A copy that takes up own writes before the watch brings them."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from holdfast.mirror import Mirror, Request, lean

NAME = "default/chat"


def thing(version: int, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "default", "name": "chat", "resourceVersion": str(version)}, **fields}


@pytest.fixture
def mirror() -> Mirror:
    return Mirror("things", cast(Request, None), "", asyncio.Event())


def test_the_answer_to_a_write_is_known_before_the_watch_brings_it(mirror: Mirror) -> None:
    mirror._apply("ADDED", thing(5))

    mirror.remember(thing(6, spec="new"))

    assert mirror.objects[NAME]["spec"] == "new"


def test_an_answer_that_comes_after_the_deletion_does_not_bring_the_object_back(mirror: Mirror) -> None:
    mirror._apply("ADDED", thing(5))
    mirror._apply("DELETED", thing(7))

    mirror.remember(thing(6))

    assert NAME not in mirror.objects


def test_an_answer_that_comes_after_a_later_change_does_not_undo_it(mirror: Mirror) -> None:
    mirror._apply("MODIFIED", thing(7, spec="later"))

    mirror.remember(thing(6, spec="mine"))

    assert mirror.objects[NAME]["spec"] == "later"


def test_an_event_from_before_an_own_write_does_not_undo_it(mirror: Mirror) -> None:
    mirror._apply("ADDED", thing(4))
    mirror.remember(thing(6, spec="mine"))

    mirror._apply("MODIFIED", thing(5, spec="before"))
    assert mirror.objects[NAME]["spec"] == "mine"

    mirror._apply("MODIFIED", thing(7, spec="after"))
    assert mirror.objects[NAME]["spec"] == "after"


def test_a_bookmark_says_how_far_the_copy_is(mirror: Mirror) -> None:
    mirror._apply("BOOKMARK", thing(9))

    mirror.remember(thing(8))

    assert NAME not in mirror.objects


def test_what_is_kept_says_the_same_in_shared_texts_and_without_managed_fields() -> None:
    text = (
        '{"metadata": {"name": "chat", "managedFields": [{"a": 1}]}, "spec": {"list": [{"reason": "Steady"}, 3, null]}}'
    )

    first, second = lean(json.loads(text)), lean(json.loads(text))

    assert first == {"metadata": {"name": "chat"}, "spec": {"list": [{"reason": "Steady"}, 3, None]}}
    assert first["spec"]["list"][0]["reason"] is second["spec"]["list"][0]["reason"]
    assert [id(key) for key in first["spec"]] == [id(key) for key in second["spec"]]
