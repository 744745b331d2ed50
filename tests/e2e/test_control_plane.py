"""What clients see, and what is decided, while the control plane itself fails under load."""

from __future__ import annotations

import signal
import time
from typing import Any

import psutil
import pytest
from tests.e2e.world import World, api_server_of, kill_processes_of, processes_of, wait_for

pytestmark = pytest.mark.e2e

LEASE_SECONDS = 15
"""How long a Lease must be seen unchanged before another operator may take it."""


def test_one_edit_anywhere_reaches_every_region(healthy: World) -> None:
    numbers = {healthy.plan(region)["number"] for region in healthy.names}

    assert len(numbers) == 1
    assert healthy.epochs() == {healthy.leader()[1]}


def test_the_leaders_operator_dies_and_another_leads(healthy: World) -> None:
    leader, epoch = healthy.leader()
    pod = healthy.operator_pod(leader)

    with healthy.load() as load:
        kill_processes_of(pod)
        wait_for("a later epoch", lambda: healthy.leader()[1] > epoch)

    load.assert_nothing_failed()


def test_the_leaders_api_server_dies_and_serving_goes_on(healthy: World) -> None:
    leader, epoch = healthy.leader()
    address = next(region.address for region in healthy.bed.regions if region.name == leader)

    with healthy.load() as load:
        api_server_of(address).kill()
        load.goes_on(8)
        healthy.bed.up(3)

    load.assert_nothing_failed()
    assert healthy.leader()[1] >= epoch


def test_the_leaders_region_dies_and_its_traffic_is_drained_by_the_next(healthy: World) -> None:
    leader, epoch = healthy.leader()
    other = next(name for name in healthy.names if name != leader)

    with healthy.load() as load:
        healthy.bed.fault("kill", leader)
        wait_for("the drain", lambda: healthy.drained_by(other, leader))
        assert healthy.plan(other)["epoch"] > epoch
        healthy.bed.heal(leader)
        wait_for("every region's whole share", healthy.steady)

    load.assert_nothing_failed()


def test_engines_that_hang_under_load_are_seen_drained_and_forgiven(healthy: World) -> None:
    with healthy.load() as load:
        region = load.busiest()
        other = next(name for name in healthy.names if name != region)
        hanging = generation_loops(healthy.ready_engine_pods(region))
        signal_all(hanging, signal.SIGSTOP)
        begun = time.monotonic()
        try:
            wait_for("a verdict", lambda: healthy.verdict(other, region) == "Unhealthy")
            print(f"{region}: Unhealthy for {other} after {time.monotonic() - begun:.1f} s")
            wait_for("the drain", lambda: healthy.drained_by(other, region))
            print(f"{region}: drained after {time.monotonic() - begun:.1f} s")
        finally:
            signal_all(hanging, signal.SIGCONT)
        wait_for("every region's whole share", healthy.steady)

    load.assert_nothing_failed()


def generation_loops(pods: list[Any]) -> list[psutil.Process]:
    """The processes that generate tokens in engines; the one that answers health checks is another."""
    found = [each for pod in pods for each in processes_of(pod) if "holdfast_engine.worker" in each.cmdline()]
    assert found, "no generation loop was found"
    return found


def test_a_leader_that_is_cut_off_steps_down_and_follows_the_next(healthy: World) -> None:
    leader, epoch = healthy.leader()
    others = [name for name in healthy.names if name != leader]

    with healthy.load() as load:
        healthy.bed.fault("cut", leader)
        wait_for("the drain", lambda: all(healthy.drained_by(other, leader) for other in others))
        assert all(healthy.plan(other)["epoch"] > epoch for other in others)
        wait_for("the loss of quorum", lambda: not healthy.has_quorum(leader))
        assert not healthy.leads(leader)
        healthy.bed.heal(leader)
        wait_for("every region's whole share", healthy.steady)

    load.assert_nothing_failed()
    _, newer = healthy.leader()
    assert newer > epoch
    wait_for("plans of one epoch", lambda: healthy.epochs() == {newer})
    wait_for("the return of quorum", lambda: healthy.has_quorum(leader))


def test_without_a_backbone_nobody_leads_and_every_region_serves(healthy: World) -> None:
    _, epoch = healthy.leader()

    with healthy.load() as load:
        plans = {region: generation(healthy, region) for region in healthy.names}
        with healthy.backbone_cut():
            cut_at = time.monotonic()
            wait_for("the loss of quorum", lambda: not any(map(healthy.has_quorum, healthy.names)))
            wait_for("the end of the leadership", lambda: not any(map(healthy.leads, healthy.names)))
            for region in healthy.bed.regions:
                status, served_by, _ = healthy.ask(f"http://{region.address}:8080")
                assert (status, served_by) == (200, region.name)
            load.goes_on(LEASE_SECONDS + 3 - (time.monotonic() - cut_at))  # now everybody could take the leader's Lease
            assert not any(map(healthy.leads, healthy.names))
            assert {region: generation(healthy, region) for region in healthy.names} == plans
        wait_for("a later epoch", lambda: healthy.leader()[1] > epoch)
        leader, newer = healthy.leader()
        wait_for("plans of one epoch", lambda: healthy.epochs() == {newer})

    load.assert_nothing_failed()
    assert [region for region in healthy.names if healthy.leads(region)] == [leader]


def test_a_leader_that_wakes_after_its_lease_changes_nothing(healthy: World) -> None:
    leader, epoch = healthy.leader()
    others = [name for name in healthy.names if name != leader]
    asleep = processes_of(healthy.operator_pod(leader))

    with healthy.load() as load:
        try:
            signal_all(asleep, signal.SIGSTOP)
            wait_for("another leader", lambda: all(healthy.lease(region)[1] > epoch for region in others))
        finally:
            signal_all(asleep, signal.SIGCONT)
        last = dict.fromkeys(healthy.names, epoch)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            now = {region: healthy.plan(region)["epoch"] for region in healthy.names}
            assert all(now[region] >= last[region] for region in healthy.names), (last, now)
            last = now
            time.sleep(0.2)

    load.assert_nothing_failed()
    newer = healthy.leader()[1]
    assert newer > epoch
    wait_for("plans of the new epoch", lambda: healthy.epochs() == {newer})


def generation(world: World, region: str) -> int:
    """Grows with every change of the region's plan."""
    return int(world.plan_object(region)["metadata"]["generation"])


def signal_all(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        process.send_signal(number)
