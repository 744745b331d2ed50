"""What is recorded of testbeds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast_testbed.errors import BedConflictError, TestbedError
from holdfast_testbed.state import Bed, check_name, claim_slot, forget_bed, load_bed, save_bed


def test_a_testbed_is_found_again_until_it_is_forgotten(bed: Bed) -> None:
    assert load_bed("paper") is None
    save_bed(bed)
    assert load_bed("paper") == bed
    forget_bed(bed)
    assert load_bed("paper") is None


def test_the_default_testbed_gets_the_first_slot_and_others_leave_it_free(bed: Bed) -> None:
    assert claim_slot(bed, lambda _: False).slot == 1
    assert claim_slot(replace(bed, name="holdfast"), lambda _: False).slot == 0


def test_a_slot_that_is_recorded_or_seen_on_the_machine_is_not_claimed(bed: Bed) -> None:
    save_bed(replace(bed, name="first", slot=1))
    claimed = claim_slot(bed, lambda slot: slot == 2)
    assert claimed.slot == 3
    assert load_bed(bed.name) == claimed


def test_without_a_free_slot_the_error_says_what_to_do(bed: Bed) -> None:
    with pytest.raises(BedConflictError, match="down --name"):
        claim_slot(bed, lambda _: True)
    assert load_bed(bed.name) is None


def test_up_with_more_regions_adds_and_with_fewer_takes_nothing_away(bed: Bed) -> None:
    assert bed.widened(("us-east",), False).regions == bed.regions
    assert bed.widened(("us-east", "sa-east"), False).regions == (*bed.regions, "sa-east")


def test_nodes_are_added_to_a_control_plane_but_never_removed() -> None:
    bare = Bed("paper", 0, "bare", True, ("us-east",))
    assert not bare.widened(("us-east",), False).control_plane_only
    full = Bed("paper", 0, "bare", False, ("us-east",))
    assert not full.widened(("us-east",), True).control_plane_only


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "-a", "a" * 31, "../x"])
def test_a_name_that_cannot_be_a_folder_and_a_namespace_is_refused(name: str) -> None:
    with pytest.raises(TestbedError, match="cannot name a testbed"):
        check_name(name)
