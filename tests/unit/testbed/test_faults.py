"""The record of a region's faults."""

from __future__ import annotations

from pathlib import Path

from holdfast_testbed import fault_record
from holdfast_testbed.provider import Fault, FaultKind


def test_faults_are_remembered_until_they_are_cleared(tmp_path: Path) -> None:
    fault_record.add(tmp_path, Fault(FaultKind.CUT))
    fault_record.add(tmp_path, Fault(FaultKind.FREEZE))
    assert fault_record.present(tmp_path) == (Fault(FaultKind.CUT), Fault(FaultKind.FREEZE))
    fault_record.clear(tmp_path)
    assert fault_record.present(tmp_path) == ()


def test_a_new_delay_takes_the_place_of_the_former(tmp_path: Path) -> None:
    fault_record.add(tmp_path, Fault(FaultKind.DELAY, 5))
    fault_record.add(tmp_path, Fault(FaultKind.DELAY, 40))
    assert fault_record.present(tmp_path) == (Fault(FaultKind.DELAY, 40),)


def test_a_region_without_a_record_has_no_faults(tmp_path: Path) -> None:
    assert fault_record.present(tmp_path / "never") == ()
    fault_record.clear(tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_fault_is_shown_with_what_matters() -> None:
    assert [str(Fault(FaultKind.DELAY, 40)), str(Fault(FaultKind.KILL))] == ["delay 40 ms", "kill"]
