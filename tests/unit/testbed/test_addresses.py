"""The address plan: inside the test range, nothing twice."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_testbed.addresses import MAX_REGIONS, SLOTS, TEST_RANGE, plan_addresses, region_names
from holdfast_testbed.errors import TestbedError


@given(slot=st.integers(0, SLOTS - 1), count=st.integers(1, MAX_REGIONS))
def test_no_two_networks_of_a_plan_overlap_and_all_lie_in_its_slot(slot: int, count: int) -> None:
    plan = plan_addresses(slot, region_names(count))
    networks = [plan.backbone, *(n for r in plan.regions for n in (r.pods, r.services))]
    assert not any(one.overlaps(other) for one, other in combinations(networks, 2))
    assert all(network.subnet_of(plan.network) and network.subnet_of(TEST_RANGE) for network in networks)
    assert all(region.address in plan.backbone for region in plan.regions)
    assert len({plan.host, *(region.address for region in plan.regions)}) == count + 1


def test_slots_do_not_overlap() -> None:
    networks = [plan_addresses(slot, ("us-east",)).network for slot in range(SLOTS)]
    assert not any(one.overlaps(other) for one, other in combinations(networks, 2))


def test_a_regions_addresses_do_not_move_when_regions_are_added() -> None:
    few, many = plan_addresses(0, region_names(2)), plan_addresses(0, region_names(5))
    assert many.regions[:2] == few.regions


def test_link_names_fit_the_kernels_limit_with_room_for_the_delay_lines_suffix() -> None:
    plan = plan_addresses(SLOTS - 1, region_names(MAX_REGIONS))
    assert max(len(region.link) for region in plan.regions) < 15


@pytest.mark.parametrize("count", [0, MAX_REGIONS + 1])
def test_a_testbed_has_one_to_seven_regions(count: int) -> None:
    with pytest.raises(TestbedError, match="1 to 7 regions"):
        region_names(count)
