"""How copies come to be the same everywhere, which edits are lost, and how a deleted service stays deleted."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.api.conditions import Reason
from holdfast.api.names import STAMP_ANNOTATION
from holdfast.api.region import Tombstone
from holdfast.domain.copies import Copy, Stamp, Version, read_copy
from holdfast.domain.guards import ALL_GUARDS, Guard
from holdfast.domain.replication import (
    Bring,
    Copies,
    Held,
    Remove,
    Renew,
    explain,
    holders,
    latest,
    next_step,
    next_tombstone,
    tombstone_of,
)
from holdfast.domain.revision import digest

SERVICE = "default/chat"
NAMES = ("us-east", "eu-west", "ap-south")


@dataclass
class Region:
    """One region's API server and its operator's replication."""

    name: str
    manifest: dict[str, Any] | None = None
    tombstone: Tombstone | None = None
    uids: int = 0
    lost: list[str] = field(default_factory=list)

    def held(self) -> Held:
        return Held(True, read_copy(self.name, self.manifest) if self.manifest else None, self.tombstone)

    def edit(self, content: str) -> None:
        assert self.manifest
        if self.manifest["spec"] != {"content": content}:
            meta = {**self.manifest["metadata"], "generation": self.manifest["metadata"]["generation"] + 1}
            self.manifest = {"metadata": meta, "spec": {"content": content}}

    def create(self, content: str, stamp: Stamp | None = None) -> None:
        self.uids += 1
        meta: dict[str, Any] = {"uid": f"{self.name}-{self.uids}", "generation": 1}
        if stamp:
            meta["annotations"] = {STAMP_ANNOTATION: stamp.model_dump_json()}
        self.manifest = {"metadata": meta, "spec": {"content": content}}

    def delete(self) -> None:
        assert self.manifest
        self.manifest = {**self.manifest, "metadata": {**self.manifest["metadata"], "deletionTimestamp": "now"}}

    def stamped(self, stamp: Stamp) -> None:
        assert self.manifest
        self.manifest["metadata"]["annotations"] = {STAMP_ANNOTATION: stamp.model_dump_json()}


class Regions:
    """Three regions, any of which may be cut off."""

    def __init__(self) -> None:
        self.all = {name: Region(name) for name in NAMES}
        self.away: set[str] = set()
        self._last: dict[tuple[str, str], Held] = {}

    def __getitem__(self, name: str) -> Region:
        return self.all[name]

    def seen_by(self, name: str) -> Copies:
        peers = {}
        for other in NAMES:
            if other == name:
                continue
            if not self.away & {name, other}:
                self._last[name, other] = self.all[other].held()
                peers[other] = self._last[name, other]
            else:
                peers[other] = replace(self._last.get((name, other), Held(False)), current=False)
        return Copies(SERVICE, name, self.all[name].held(), peers)

    def turn(self, name: str) -> bool:
        """One step of one operator; whether anything was done."""
        region, seen = self.all[name], self.seen_by(name)
        own = seen.own.copy
        if own and own.deleting:
            region.tombstone = tombstone_of(SERVICE, own, seen)
            region.manifest = None
            return True
        step = next_step(seen)
        if isinstance(step, Bring):
            if region.manifest is None:
                region.create(step.source.spec["content"], step.stamp)
            else:
                region.edit(step.source.spec["content"])
                region.stamped(step.stamp)
        elif isinstance(step, Renew):
            region.stamped(step.stamp)
        elif isinstance(step, Remove):
            region.delete()
        if step and (said := explain(step)):
            region.lost.append(said[1])
        wanted = next_tombstone(self.seen_by(name))
        changed = wanted != region.tombstone
        region.tombstone = wanted
        return bool(step) or changed

    def settle(self) -> None:
        for _ in range(50):
            done = [self.turn(name) for name in NAMES]
            if not any(done):
                return
        raise AssertionError("replication does not come to rest")

    def contents(self) -> list[str | None]:
        return [each.manifest["spec"]["content"] if each.manifest else None for each in self.all.values()]

    def versions(self) -> set[Version | None]:
        copies = [each.held().copy for each in self.all.values()]
        return {copy.version if copy else None for copy in copies}


@pytest.fixture
def regions() -> Regions:
    """A service that was applied in the first region and is everywhere."""
    made = Regions()
    made["us-east"].create("a")
    made.settle()
    return made


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


def test_a_deleted_service_goes_everywhere_and_its_tombstones_go_in_the_end(regions: Regions) -> None:
    regions["eu-west"].delete()
    regions.settle()

    assert regions.contents() == [None, None, None]
    assert all(region.tombstone is None for region in regions.all.values())


def test_a_region_that_was_away_cannot_bring_a_deleted_service_back(regions: Regions) -> None:
    regions.away = {"ap-south"}
    regions["us-east"].delete()
    regions["ap-south"].edit("late")
    regions.settle()
    assert regions["us-east"].tombstone is not None, "one region has not confirmed"
    assert regions.contents() == [None, None, "late"]

    regions.away = set()
    regions.settle()

    assert regions.contents() == [None, None, None]
    assert all(region.tombstone is None for region in regions.all.values())
    assert "deleted in another region" in regions["ap-south"].lost[0]


def test_without_tombstones_it_would_come_back(regions: Regions) -> None:
    seen = Copies(
        SERVICE, "us-east", Held(True, None, Tombstone(service=SERVICE)), {"ap-south": regions["ap-south"].held()}
    )

    assert next_step(seen) is None
    assert isinstance(next_step(seen, ALL_GUARDS - {Guard.TOMBSTONES_WIN}), Bring)


def test_a_service_made_again_lives_although_a_region_still_has_the_old_one(regions: Regions) -> None:
    regions.away = {"ap-south"}
    regions["us-east"].delete()
    regions.settle()
    regions["us-east"].create("new")
    regions["ap-south"].edit("late")
    regions.settle()
    regions.away = set()
    regions.settle()

    assert regions.contents() == ["new", "new", "new"]
    assert {version.incarnation for version in regions.versions() if version} == {1}
    assert all(region.tombstone is None for region in regions.all.values())


def test_a_copy_of_an_older_incarnation_is_brought_on_and_not_removed(regions: Regions) -> None:
    old = regions["ap-south"].held().copy
    assert old
    new = replace(old, region="us-east", version=Version(1, 1, "new"), spec={"content": "new"})
    peer = Held(True, new, Tombstone(service=SERVICE, incarnation=0))

    step = next_step(Copies(SERVICE, "ap-south", Held(True, old), {"us-east": peer}))

    assert isinstance(step, Bring), "its engines may go on"
    assert step.source is new


def test_a_service_made_again_can_be_deleted_again_although_its_region_still_lists_the_first_time(
    regions: Regions,
) -> None:
    copy = regions["us-east"].held().copy
    assert copy
    renewed = replace(copy, uid="new", version=Version(1, 1, "d"))
    own = Held(True, renewed, Tombstone(service=SERVICE, incarnation=0, uid="old"))
    peer = Held(True, None, Tombstone(service=SERVICE, incarnation=1))

    assert isinstance(next_step(Copies(SERVICE, "us-east", own, {"eu-west": peer})), Remove)


def test_a_service_made_again_in_two_regions_becomes_one(regions: Regions) -> None:
    regions["us-east"].delete()
    for _ in range(3):
        for name in NAMES:
            regions.turn(name)
            if regions[name].manifest is None and name != "ap-south" and regions[name].tombstone:
                regions[name].create(f"new in {name}")
    regions.settle()

    assert len(set(regions.contents())) == 1
    assert None not in regions.contents()


def test_tombstones_are_kept_while_a_region_cannot_be_read() -> None:
    stone = Tombstone(service=SERVICE, incarnation=2, confirmed=True)
    unread = Copies(SERVICE, "us-east", Held(True, None, stone), {"eu-west": Held(True), "ap-south": Held(False)})

    assert next_tombstone(unread) == stone


def test_a_tombstone_is_confirmed_only_when_every_region_lists_it() -> None:
    stone = Tombstone(service=SERVICE, incarnation=2)
    listed, bare = Held(True, None, stone), Held(True)

    assert next_tombstone(Copies(SERVICE, "us-east", listed, {"eu-west": listed, "ap-south": bare})) == stone
    confirmed = next_tombstone(Copies(SERVICE, "us-east", listed, {"eu-west": listed, "ap-south": listed}))
    assert confirmed
    assert confirmed.confirmed


def test_a_region_that_has_forgotten_a_confirmed_tombstone_does_not_list_it_again() -> None:
    confirmed = Held(True, None, Tombstone(service=SERVICE, confirmed=True))

    assert next_tombstone(Copies(SERVICE, "us-east", Held(True), {"eu-west": confirmed})) is None


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
