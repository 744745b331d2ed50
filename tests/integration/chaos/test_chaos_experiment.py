"""The experiment around a real process that is killed and started again, and what it does when it is disturbed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast_chaos.client import LoadSpec
from holdfast_chaos.edge import Edge
from holdfast_chaos.errors import EdgeError, LoadError
from holdfast_chaos.experiment import Plan, run_experiment
from holdfast_chaos.load_process import LoadProcess
from holdfast_chaos.measure import measure
from holdfast_chaos.records import StreamOutcome

pytestmark = pytest.mark.integration


class OneRegion:
    """Regions of which there is one: the stand-in."""

    def __init__(self, server: Any, broken: bool = False) -> None:
        self.acts: list[tuple[str, str]] = []
        self._server = server
        self._broken = broken

    def fault(self, kind: str, region: str) -> None:
        self.acts.append((kind, region))
        if self._broken:
            raise OSError("the fault could not be injected")
        self._server.kill()

    def heal(self, region: str) -> None:
        self.acts.append(("heal", region))
        self._server.start()


def nothing(_: Any) -> None:
    pass


def load_on(server: Any, seconds: float = 10) -> LoadProcess:
    return LoadProcess(LoadSpec(server.url, "tiny", rate=30, seconds=seconds, streams=2))


def test_a_region_that_is_killed_and_healed_shows_with_its_recovery_time(region: Any) -> None:
    regions = OneRegion(region)
    with load_on(region, seconds=20) as load:
        (fault,) = run_experiment(load, Plan(("kill",), 3, 2), regions, nothing, nothing)
        records = load.result()
    measured = measure(records, [fault])

    assert regions.acts == [("kill", "us-east"), ("heal", "us-east")]
    assert 3 <= fault.asked <= fault.done <= fault.heal_asked
    assert fault.heal_done is not None
    assert fault.heal_done >= fault.heal_asked >= 5
    assert measured.requests_failed > 0
    assert measured.streams[StreamOutcome.TRUNCATED] == 2
    assert measured.rto is not None
    assert fault.asked + measured.rto > fault.done


def test_a_disturbed_experiment_heals_what_it_broke(region: Any) -> None:
    def interrupt(_: float) -> None:
        if regions.acts:
            raise KeyboardInterrupt

    regions = OneRegion(region)
    with pytest.raises(KeyboardInterrupt), load_on(region, seconds=60) as load:
        run_experiment(load, Plan(("kill",), 2, 48), regions, interrupt, nothing)

    assert regions.acts == [("kill", "us-east"), ("heal", "us-east")]


def test_a_fault_that_cannot_be_injected_ends_the_experiment_and_is_healed(region: Any) -> None:
    regions = OneRegion(region, broken=True)
    with pytest.raises(OSError, match="could not be injected"), load_on(region, seconds=60) as load:
        run_experiment(load, Plan(("kill",), 2, 48), regions, nothing, nothing)

    assert regions.acts[-1] == ("heal", "us-east")


def test_without_any_answer_that_names_a_region_nothing_is_broken(region: Any) -> None:
    regions = OneRegion(region)
    region.kill()
    with pytest.raises(LoadError, match="none to let fail"), load_on(region, seconds=60) as load:
        run_experiment(load, Plan(("kill",), 2, 48), regions, nothing, nothing)

    assert regions.acts == []


def test_an_edge_that_ends_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="missing"), Edge([tmp_path / "missing"]) as edge:
        edge.wait_for_regions("tiny", ["us-east"], nothing)
