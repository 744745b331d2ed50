"""What clients see, and what is decided, while the control plane itself fails under load."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import psutil
import pytest
from tests.e2e.world import World, api_server_of, kill_processes_of, processes_of, wait_for

pytestmark = pytest.mark.e2e


class Act:
    """A fault of the control plane, made of two functions."""

    def __init__(self, fault: Callable[[], None], heal: Callable[[], None] = lambda: None) -> None:
        self._fault, self._heal = fault, heal

    def fault(self, _kind: str, _region: str) -> None:
        self._fault()

    def heal(self, _region: str) -> None:
        self._heal()


def test_one_edit_anywhere_reaches_every_region(healthy: World) -> None:
    numbers = {healthy.plan(region)["number"] for region in healthy.names}

    assert len(numbers) == 1
    assert {healthy.plan(region)["epoch"] for region in healthy.names} == {healthy.leader()[1]}


def test_the_leaders_operator_dies_and_another_leads(healthy: World) -> None:
    leader, epoch = healthy.leader()
    pod = healthy.operator_pod(leader)

    seen, _ = healthy.under_load("kill the operator", Act(lambda: kill_processes_of(pod)), heal_at=20, seconds=28)

    assert seen.requests_failed == 0, seen.failures
    wait_for("a later epoch", lambda: healthy.leader()[1] > epoch)


def test_the_leaders_api_server_dies_and_serving_goes_on(healthy: World) -> None:
    leader, epoch = healthy.leader()
    address = next(region.address for region in healthy.bed.regions if region.name == leader)

    def heal() -> None:
        healthy.bed.up(3)

    server = api_server_of(address)
    seen, _ = healthy.under_load("kill the API server", Act(server.kill, heal), heal_at=16, seconds=24)

    assert seen.requests_failed == 0, seen.failures
    assert healthy.leader()[1] >= epoch


def test_the_leaders_region_dies_and_its_traffic_is_drained_by_the_next(healthy: World) -> None:
    leader, epoch = healthy.leader()
    others = [name for name in healthy.names if name != leader]

    def drained() -> bool:
        traffic = {each["region"]: each["state"] for each in healthy.plan(others[0])["traffic"]}
        return traffic[leader] == "Drained" and healthy.plan(others[0])["epoch"] > epoch

    def fault() -> None:
        healthy.bed.fault("kill", leader)

    def heal() -> None:
        wait_for("the drain", drained)
        healthy.bed.heal(leader)

    seen, _ = healthy.under_load("kill", Act(fault, heal), heal_at=20, seconds=40)

    assert seen.requests_failed == 0, seen.failures
    assert seen.rto == 0.0


def test_a_leader_that_wakes_after_its_lease_changes_nothing(healthy: World) -> None:
    leader, epoch = healthy.leader()
    others = [name for name in healthy.names if name != leader]
    asleep = processes_of(healthy.operator_pod(leader))

    def wake() -> None:
        wait_for("another leader", lambda: all(healthy.lease(region)[1] > epoch for region in others))
        signal_all(asleep, signal.SIGCONT)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            assert all(healthy.plan(region)["epoch"] >= epoch for region in healthy.names)
            time.sleep(0.2)

    fault = Act(lambda: signal_all(asleep, signal.SIGSTOP), wake)
    seen, _ = healthy.under_load("pause the operator", fault, heal_at=26, seconds=34)

    assert seen.requests_failed == 0, seen.failures
    newer = healthy.leader()[1]
    assert newer > epoch
    wait_for("plans of the new epoch", lambda: {healthy.plan(name)["epoch"] for name in healthy.names} == {newer})


def signal_all(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        process.send_signal(number)
