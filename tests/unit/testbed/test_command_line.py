"""The command line: sentences instead of tracebacks, and exit codes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from holdfast_testbed.__main__ import main
from holdfast_testbed.errors import ComponentError, TestbedError
from holdfast_testbed.progress import Progress
from holdfast_testbed.state import Bed, save_bed
from holdfast_testbed.testbed import Testbed, choose_provider


@pytest.mark.parametrize(
    "arguments",
    [
        ["kubeconfig", "us-east"],
        ["load-image", __file__],
        ["fault", "kill", "us-east"],
        ["fault", "heal", "us-east"],
    ],
)
def test_without_a_testbed_the_user_is_told_to_start_one(bed: Bed, arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [*arguments, "--name", bed.name])
    assert result.exit_code == 1
    assert result.output.startswith("Error: There is no testbed paper")


def test_status_of_nothing_is_empty_and_fails(bed: Bed) -> None:
    result = CliRunner().invoke(main, ["status", "-o", "json", "--name", bed.name])
    assert (result.exit_code, json.loads(result.output)) == (1, [])


def test_down_of_nothing_is_no_error(bed: Bed) -> None:
    result = CliRunner().invoke(main, ["down", "--name", bed.name])
    assert (result.exit_code, result.output) == (0, "There is no testbed paper.\n")


def test_an_unknown_region_is_named_with_those_there_are(bed: Bed) -> None:
    save_bed(bed)
    result = CliRunner().invoke(main, ["kubeconfig", "mars", "--name", bed.name])
    assert "no region mars, only us-east, eu-west, ap-south" in result.output


def test_the_kubeconfigs_path_is_printed_alone(bed: Bed) -> None:
    save_bed(bed)
    result = CliRunner().invoke(main, ["kubeconfig", "eu-west", "--name", bed.name])
    assert Path(result.output.strip()) == bed.kubeconfig("eu-west")


def test_a_delay_needs_a_length(bed: Bed) -> None:
    save_bed(bed)
    with pytest.raises(TestbedError, match="--delay-ms"):
        Testbed(bed.name).fault("delay", "us-east")


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(TestbedError, match="auto, bare, kind"):
        choose_provider("cloud")


def test_a_component_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "etcd.log"
    log.write_text("\n".join(f"line {number}" for number in range(100)))
    message = str(ComponentError("etcd", "us-east", log, "ended while it was starting"))
    assert message.startswith(f"etcd of region us-east ended while it was starting; its log {log} ends with:")
    assert message.endswith("line 99")
    assert "line 1\n" not in message


def test_progress_prints_plain_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    with Progress(Console(file=out)).step("building [dim]") as update:
        update("half")
    assert out.getvalue().startswith("✓ building [dim] (0.0 s)")
