"""How copies come to be the same everywhere, and which edits are lost."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.holdfast.replicating import NAMES, SERVICE, Regions

from holdfast.api.conditions import Reason
from holdfast.domain.copies import Copy, Stamp, Version, read_copy
from holdfast.domain.replication import (
    Bring,
    Copies,
    Held,
    Remove,
    explain,
    holders,
    latest,
    next_step,
)
from holdfast.domain.revision import digest


def test_a_service_applied_in_one_region_is_brought_to_all(regions: Regions) -> None:
    assert regions.contents() == ["a", "a", "a"]
    assert len(regions.versions()) == 1


def test_a_service_applied_everywhere_needs_no_write() -> None:
    made = Regions()
    for name in NAMES:
        made[name].create("a")

    assert all(next_step(made.seen_by(name)) is None for name in NAMES)
    assert len(made.versions()) == 1


def test_an_edit_reaches_every_region_and_nothing_is_reported_lost(regions: Regions) -> None:
    regions["ap-south"].edit("b")
    regions.settle()

    assert regions.contents() == ["b", "b", "b"]
    assert not any(region.lost for region in regions.all.values())


def test_of_two_edits_that_did_not_know_of_each_other_one_wins_and_the_other_is_reported(regions: Regions) -> None:
    regions.away = {"us-east"}
    regions["us-east"].edit("b")
    regions["eu-west"].edit("c")
    regions["eu-west"].edit("d")
    regions.settle()
    regions.away = set()
    regions.settle()

    assert regions.contents() == ["d", "d", "d"]
    [said] = regions["us-east"].lost
    assert "Edit 2 made here was replaced by edit 3 made in eu-west" in said
    assert not regions["eu-west"].lost


def test_two_edits_of_one_number_give_the_same_winner_everywhere(regions: Regions) -> None:
    regions["us-east"].edit("b")
    regions["eu-west"].edit("c")
    regions.settle()

    assert len(set(regions.contents())) == 1
    assert sum(len(region.lost) for region in regions.all.values()) == 1


def test_the_same_edit_made_in_two_regions_is_not_lost(regions: Regions) -> None:
    regions["us-east"].edit("b")
    regions["eu-west"].edit("b")
    regions.settle()

    assert regions.contents() == ["b", "b", "b"]
    assert not any(region.lost for region in regions.all.values())


def test_an_edit_that_others_built_upon_is_not_lost_when_they_win(regions: Regions) -> None:
    regions["us-east"].edit("b")
    regions.settle()
    regions["eu-west"].edit("c")
    regions.settle()

    assert regions.contents() == ["c", "c", "c"]
    assert not regions["us-east"].lost


def test_going_back_to_an_earlier_content_is_an_edit_like_any_other_and_can_be_lost(regions: Regions) -> None:
    regions["us-east"].edit("b")
    regions.settle()
    regions.away = {"us-east"}
    regions["us-east"].edit("a")
    regions["eu-west"].edit("c")
    regions["eu-west"].edit("d")
    regions.settle()
    regions.away = set()
    regions.settle()

    assert regions.contents() == ["d", "d", "d"]
    assert len(regions["us-east"].lost) == 1, "the winner has seen `a` once, but not the return to it"


def test_a_region_that_slept_through_edits_is_outdated_and_lost_nothing() -> None:
    made = Regions()
    for name in NAMES:
        made[name].create("a")
    made.settle()
    made.away = {"us-east"}
    for content in "bcd":
        meta = made["eu-west"].manifest
        assert meta
        made["eu-west"].edit(content)
        # What the region's status says: the content that a majority held before the edit.
        seen = read_copy("eu-west", meta)
        copy = read_copy("eu-west", made["eu-west"].manifest or {}, seen.version.digest)
        made["ap-south"].edit(content)
        own = made["ap-south"].held().copy
        assert own
        made["ap-south"].stamped(
            Stamp(
                number=copy.version.number,
                generation=own.generation,
                digest=copy.version.digest,
                origin="eu-west",
                history=(*own.history, *copy.history)[-9:],
            )
        )
    made.away = set()
    made.settle()

    assert made.contents() == ["d", "d", "d"]
    assert not made["us-east"].lost


def test_of_equal_copies_the_one_that_knows_most_is_brought(regions: Regions) -> None:
    copy = regions["us-east"].held().copy
    assert copy
    wise = replace(copy, region="ap-south", history=("x", "y"))
    seen = Copies(SERVICE, "eu-west", Held(True), {"us-east": Held(True, copy), "ap-south": Held(True, wise)})

    assert latest(seen) == wise


def test_a_copy_that_was_restored_with_its_old_stamp_is_stamped_anew_so_that_edits_count(regions: Regions) -> None:
    old = regions["us-east"].held().copy
    assert old
    stamp = Stamp(number=1, generation=9, digest=old.version.digest, origin="us-east")
    regions["us-east"].create("a", stamp)  # another object, of generation 1
    regions.settle()
    regions["us-east"].edit("b")
    regions.settle()

    assert regions.contents() == ["b", "b", "b"]


def test_an_own_copy_that_is_about_to_go_is_left_alone(regions: Regions) -> None:
    regions["us-east"].delete()

    assert next_step(regions.seen_by("us-east")) is None


def test_holders_are_only_those_whose_present_state_is_known(regions: Regions) -> None:
    regions.seen_by("us-east")
    copy = regions["us-east"].held().copy
    assert copy
    regions.away = {"ap-south"}

    assert holders(regions.seen_by("us-east"), copy.version) == ("eu-west", "us-east")


def test_a_lost_edit_is_explained_with_its_winner() -> None:
    def copy(region: str, number: int) -> Copy:
        return Copy(region, "u", Version(0, number, digest(region)), region, (), True, {}, 1)

    lost = copy("us-east", 2)
    seen = Copies(SERVICE, "us-east", Held(True, lost), {"eu-west": Held(True, copy("eu-west", 3))})
    step = next_step(seen)

    assert isinstance(step, Bring)
    assert step.lost is lost
    said = explain(step)
    assert said
    assert said[0] == Reason.EDIT_REPLACED
    assert explain(Remove(lost)) is not None
    assert explain(replace(step, lost=None)) is None


ACTS = st.lists(
    st.tuples(st.sampled_from(["edit", "delete", "create", "away", "back", "turn", "turn"]), st.sampled_from(NAMES)),
    max_size=40,
)


@given(ACTS, st.randoms(use_true_random=False))
def test_whatever_people_do_all_regions_agree_in_the_end(acts: list[tuple[str, str]], rng: random.Random) -> None:
    regions, deleted = Regions(), False
    regions["us-east"].create("a")
    for act, name in acts:
        region = regions[name]
        alive = region.manifest and "deletionTimestamp" not in region.manifest["metadata"]
        match act:
            case "edit" if alive:
                region.edit(rng.choice("abcd"))
            case "delete" if alive:
                region.delete()
                deleted = True
            case "create" if region.manifest is None:
                region.create(rng.choice("abcd"))
            case "away":
                regions.away = {name}
            case "back":
                regions.away = set()
            case "turn":
                regions.turn(name)
    regions.away = set()
    regions.settle()

    assert len(regions.versions()) == 1
    assert len(set(regions.contents())) == 1
    assert all(region.tombstone is None for region in regions.all.values())
    assert deleted or None not in regions.contents()
