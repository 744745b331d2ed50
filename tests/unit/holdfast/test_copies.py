"""The number and the history of a copy."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.api.names import STAMP_ANNOTATION
from holdfast.domain.copies import HISTORY, Copy, Stamp, Version, joined, read_copy, read_stamp, stamp_for
from holdfast.domain.revision import digest


def manifest(content: Any, generation: int = 1, stamp: Stamp | str | None = None, **meta: Any) -> dict[str, Any]:
    text = stamp.model_dump_json() if isinstance(stamp, Stamp) else stamp
    annotations = {"annotations": {STAMP_ANNOTATION: text}} if text is not None else {}
    return {"metadata": {"uid": "u", "generation": generation, **annotations, **meta}, "spec": {"content": content}}


def named(content: Any) -> str:
    return digest({"content": content})


STAMP = Stamp(number=7, generation=3, digest=named("b"), origin="eu-west", history=(named("a"),))


def test_a_copy_without_a_stamp_has_the_number_of_its_generation() -> None:
    copy = read_copy("us-east", manifest("a", generation=2))

    assert copy.version == Version(0, 2, named("a"))
    assert copy.edited_here
    assert copy.origin == "us-east"


def test_one_manifest_applied_everywhere_gives_every_copy_the_same_version() -> None:
    assert read_copy("us-east", manifest("a")).version == read_copy("eu-west", manifest("a")).version


def test_a_brought_copy_has_the_version_of_its_source() -> None:
    copy = read_copy("us-east", manifest("b", generation=3, stamp=STAMP))

    assert copy.version == Version(0, 7, named("b"))
    assert not copy.edited_here
    assert copy.origin == "eu-west"


def test_an_edit_counts_on_from_the_stamp_and_remembers_what_was_there() -> None:
    copy = read_copy("us-east", manifest("c", generation=5, stamp=STAMP))

    assert copy.version == Version(0, 9, named("c"))
    assert copy.edited_here
    assert copy.history == (named("a"), named("b"))


def test_what_a_majority_held_is_part_of_an_edits_history() -> None:
    assert read_copy("us-east", manifest("b", generation=2), known_before=named("a")).history == (named("a"),)
    assert read_copy("us-east", manifest("a", generation=2), known_before=named("a")).history == ()


def test_a_stamp_that_cannot_be_read_counts_as_none() -> None:
    assert read_stamp(manifest("a", stamp="{")) is None
    assert read_stamp(manifest("a", stamp='{"number": 1}')) is None
    assert read_stamp(manifest("a")) is None


def test_a_copy_that_is_about_to_go_is_known_as_such() -> None:
    assert read_copy("us-east", manifest("a", deletionTimestamp="2026-01-01T12:00:00Z")).deleting


def test_later_incarnations_win_then_higher_numbers_then_greater_digests() -> None:
    assert Version(1, 1, "a") > Version(0, 9, "z") > Version(0, 8, "z") > Version(0, 8, "a")


def copy_of(*contents: str) -> Copy:
    """The copy after these edits."""
    last = read_copy("us-east", manifest(contents[-1], generation=len(contents)))
    return Copy(**{**vars(last), "history": tuple(named(each) for each in contents[:-1])})


def test_a_copy_that_is_brought_on_adds_what_it_had_before_to_what_its_source_knows() -> None:
    assert joined(copy_of("a", "b"), copy_of("b", "c")) == (named("a"), named("b"))
    assert joined(copy_of("a", "b"), copy_of("a", "b", "c")) == (named("a"), named("b"))
    assert joined(copy_of("a", "x"), copy_of("a", "c")) == (named("a"),), "a lost edit is not part of it"
    assert joined(copy_of("a", "b", "a"), copy_of("a", "b", "c")) == (named("a"), named("b")), "a lost return neither"


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.integers(1, 9))
def test_a_stamp_says_again_what_was_read_from_it(contents: list[str], generation: int) -> None:
    source = copy_of(*contents)
    stamp = stamp_for(source, generation)
    text = Stamp.model_validate_json(stamp.model_dump_json())

    again = read_copy("eu-west", manifest(contents[-1], generation=generation, stamp=text))

    assert again.version == source.version
    assert again.origin == source.origin
    assert again.history == source.history
    assert len(joined(source, again)) <= max(HISTORY, len(source.history))
