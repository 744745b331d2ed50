"""Where the containers' share of the processor is set, in both layouts of cgroups."""

from __future__ import annotations

from pathlib import Path

from holdfast_testbed.bare.precedence import of_containers


def test_one_hierarchy_for_each_controller(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()

    of_containers(tmp_path)

    assert (tmp_path / "cpu" / "k8s.io" / "cpu.shares").read_text() == "8192"


def test_one_hierarchy_for_all(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")

    of_containers(tmp_path)

    assert (tmp_path / "k8s.io" / "cpu.weight").read_text() == "800"


def test_a_machine_without_such_cgroups_is_left_alone(tmp_path: Path) -> None:
    of_containers(tmp_path)

    assert not list(tmp_path.iterdir())
