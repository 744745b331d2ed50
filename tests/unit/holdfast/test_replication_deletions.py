"""How a deleted service stays deleted, and one that is made again lives."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.holdfast.replicating import NAMES, SERVICE, Regions

from holdfast.api.region import Tombstone
from holdfast.domain.copies import Version
from holdfast.domain.guards import ALL_GUARDS, Guard
from holdfast.domain.replication import (
    Bring,
    Copies,
    Held,
    Remove,
    next_step,
    next_tombstone,
)


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
