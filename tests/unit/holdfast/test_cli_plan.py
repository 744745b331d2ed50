"""`holdfast plan`: the leader's decision from files alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from holdfast.__main__ import main

ROOT = Path(__file__).parents[3]
IMAGE = "--engine-image=openvino=holdfast/engine:1"
FILES = [part for name in ("chat.yaml", "regions.yaml") for part in ("-f", str(ROOT / "examples" / name))]


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, ["plan", *arguments], input=stdin)


def test_a_healthy_service_has_its_share_everywhere() -> None:
    result = run(*FILES, IMAGE)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("default/chat  revision ")
    assert lines[0].endswith(", image holdfast/engine:1")
    assert [line.split() for line in lines[1:5]] == [
        ["REGION", "STATE", "SHARE", "WEIGHT", "ENGINES"],
        *([name, "Serving", "100%", "100", "1"] for name in ("us-east", "eu-west", "ap-south")),
    ]


def test_the_output_is_what_would_be_written() -> None:
    documents = list(yaml.safe_load_all(run(*FILES, IMAGE, "-o", "yaml").stdout))
    assert [each["spec"]["region"] for each in documents] == ["us-east", "eu-west", "ap-south"]
    assert {each["kind"] for each in documents} == {"RegionPlan"}
    assert documents == json.loads(run(*FILES, IMAGE, "-o", "json").stdout)
    [only] = yaml.safe_load_all(run(*FILES, IMAGE, "-o", "yaml", "--region", "eu-west").stdout)
    assert only == documents[1]


def test_the_engines_of_a_failed_region_are_started_elsewhere() -> None:
    lines = run(*FILES, IMAGE, "--unhealthy", "us-east").stdout.splitlines()
    assert lines[2].split() == ["us-east", "Drained", "0%", "100", "1"]
    assert lines[3].split() == ["eu-west", "Serving", "100%", "100", "2"]
    assert any("RegionUnhealthy: us-east is taken to be seen failing" in line for line in lines)


def test_warm_engines_are_shown_beside_the_others_until_they_are_promoted() -> None:
    services = (ROOT / "examples" / "chat.yaml").read_text().replace("max: 2}", "max: 2}\n    warm: 1")
    usual = run(*FILES[2:], "-f", "-", IMAGE, stdin=services).stdout.splitlines()
    without = run(*FILES[2:], "-f", "-", IMAGE, "--unhealthy", "us-east", stdin=services).stdout.splitlines()
    assert [line.split()[4:] for line in usual[2:5]] == [["1", "+", "1", "warm"]] * 3
    assert [line.split()[4:] for line in without[2:5]] == [["1", "+", "1", "warm"], ["2"], ["1", "+", "1", "warm"]]


def test_a_drain_beyond_the_allowed_fraction_is_refused_with_the_leaders_sentence() -> None:
    output = " ".join(run(*FILES, IMAGE, "--drain", "us-east", "--drain", "eu-west").stdout.split())
    assert "eu-west: Serving, DrainRefused: Somebody asked to drain eu-west. Its traffic stays, as 1 of 3" in output


def test_an_impossible_spec_is_refused_with_reason_and_sentence() -> None:
    result = run(*FILES)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("default/chat is refused, EngineImageMissing: The operator has no default image")


def test_a_spec_that_does_not_fit_the_types_is_refused() -> None:
    document = {"apiVersion": "serving.holdfast.dev/v1alpha1", "kind": "LLMService", "metadata": {"name": "chat"}}
    result = run("-f", "-", stdin=yaml.safe_dump(document))
    assert result.exit_code == 1
    assert result.stderr.startswith("default/chat is refused, SpecInvalid: spec.model: Field required")


def test_without_regions_no_region_is_known() -> None:
    assert "UnknownRegion: No Region object names us-east" in run(*FILES[:2], IMAGE).stderr


def test_of_two_services_with_one_model_name_the_later_is_refused() -> None:
    text = (ROOT / "examples" / "chat.yaml").read_text()
    result = run(*FILES, "-f", "-", IMAGE, stdin=text.replace("name: chat", "name: another"))
    assert result.exit_code == 1
    assert "default/another is refused, ModelNameTaken" in result.stderr
    assert result.stdout.startswith("default/chat ")


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"),
    [
        (("-f", "/nowhere"), None, "/nowhere cannot be read: No such file or directory."),
        (("-f", "-"), "{", "- is not YAML: "),
        (("-f", "-"), "7", "- holds a document that is no Kubernetes object with a kind and a name."),
        (("-f", "-"), "", "The files hold no LLMService."),
        (
            (*FILES, IMAGE, "--drain", "mars"),
            None,
            "There is no region mars; the files have: us-east, eu-west, ap-south.",
        ),
        ((*FILES, IMAGE, "--region", "mars"), None, "There is no serving region mars; the files have: us-east"),
    ],
)
def test_what_is_wrong_with_the_files_is_one_sentence(
    arguments: tuple[str, ...], stdin: str | None, sentence: str
) -> None:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 1
    assert sentence in result.output
    assert len(result.output.splitlines()) == 1
