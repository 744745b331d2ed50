"""Recognising processes: never one that only has the same number."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast_testbed.bare import processes
from holdfast_testbed.bare.processes import identify, kill_region, members, record, recorded, spawn, started_at
from holdfast_testbed.bare.site import Site


@pytest.fixture
def sleeper(tmp_path: Path) -> processes.Process:
    return spawn(["sleep", "60"], tmp_path / "sleeper.log")


def test_a_recorded_process_is_found_until_it_ends(site: Site, sleeper: processes.Process) -> None:
    record(site, "etcd", sleeper)
    assert recorded(site, "etcd") == sleeper
    assert started_at(site, "etcd") > 0
    assert kill_region(site)
    assert recorded(site, "etcd") is None


def test_a_recycled_id_is_not_taken_for_the_process(site: Site) -> None:
    ours = identify(os.getpid())
    assert ours is not None
    record(site, "etcd", replace(ours, started=ours.started - 1))
    assert recorded(site, "etcd") is None
    assert os.getpid() not in members(site)


def test_a_process_of_an_earlier_boot_is_not_taken_for_ours(site: Site) -> None:
    ours = identify(os.getpid())
    assert ours is not None
    record(site, "etcd", replace(ours, boot="another"))
    assert recorded(site, "etcd") is None


def test_what_a_component_has_started_belongs_to_the_region(site: Site, tmp_path: Path) -> None:
    parent = spawn(["sh", "-c", "sleep 60 & wait"], tmp_path / "parent.log")
    record(site, "containerd", parent)
    while len(members(site)) < 2:
        pass
    assert parent.pid in members(site)
    assert kill_region(site)
    assert members(site) == set()


def test_a_frozen_process_can_be_killed(site: Site, sleeper: processes.Process) -> None:
    record(site, "etcd", sleeper)
    assert processes.signal_region(site, signal.SIGSTOP) == 1
    assert recorded(site, "etcd") == sleeper
    assert kill_region(site)


def test_nothing_is_recorded_of_a_region_that_was_never_started(site: Site) -> None:
    assert recorded(site, "etcd") is None
    assert members(site) == set()
    assert started_at(site, "etcd") == 0
