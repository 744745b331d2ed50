"""The objects as types, and the CRDs made from them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast.api.conditions import Reason
from holdfast.api.crd import DEFINITIONS, definition
from holdfast.api.llmservice import LLMServiceSpec
from holdfast.api.route import RegionTarget, Route
from holdfast.api.schema import format_duration, parse_duration

ROOT = Path(__file__).parents[3]


def nodes(schema: Any) -> Any:
    """Every mapping within a schema."""
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from nodes(value)


@given(st.integers(min_value=0, max_value=10**9))
def test_a_duration_reads_back_as_it_was_written(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize("text", ["", "5", "5 s", "-5s", "s", "1d", 5])
def test_what_is_not_a_duration_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match="500ms"):
        parse_duration(text)


@pytest.mark.parametrize("kind", DEFINITIONS, ids=lambda each: each.kind)
def test_every_schema_is_structural(kind: Any) -> None:
    schema = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

    for node in nodes(schema):
        assert "$ref" not in node
        assert "anyOf" not in node
        if isinstance(node.get("properties"), dict):
            assert node["type"] == "object"
        if "default" in node:
            assert node["default"] is not None
            assert None not in (node["default"].values() if isinstance(node["default"], dict) else ())


@pytest.mark.parametrize("kind", DEFINITIONS, ids=lambda each: each.kind)
def test_every_field_of_a_spec_is_described(kind: Any) -> None:
    spec = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]

    for node in nodes(spec):
        if isinstance(node.get("properties"), dict):
            for name, field in node["properties"].items():
                assert field.get("description"), f"{name} has no description"


@pytest.mark.parametrize("kind", DEFINITIONS, ids=lambda each: each.kind)
def test_the_committed_crds_are_those_of_the_types(kind: Any) -> None:
    expected = definition(kind)
    for folder in ("crds", "charts/holdfast/files/crds"):
        committed = yaml.safe_load((ROOT / folder / f"{kind.plural}.yaml").read_text())
        assert committed == expected, "run `make generate`"


def test_defaults_in_the_crd_are_those_of_the_types() -> None:
    minimal = {
        "model": {"name": "m", "source": "file:///m"},
        "engine": {"type": "openvino"},
        "regions": [{"name": "a"}],
    }
    schema = definition(DEFINITIONS[0])["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]

    defaulted = with_defaults(schema, minimal)

    assert LLMServiceSpec.parse(defaulted) == LLMServiceSpec.parse(minimal)
    assert defaulted["traffic"]["maxStream"] == "15m"


def with_defaults(schema: dict[str, Any], value: Any) -> Any:
    """What an API server makes of an object: missing fields get the schema's defaults."""
    if isinstance(value, dict) and "properties" in schema:
        filled = dict(value)
        for name, field in schema["properties"].items():
            if name not in filled and "default" in field:
                filled[name] = field["default"]
            if name in filled:
                filled[name] = with_defaults(field, filled[name])
        return filled
    if isinstance(value, list) and "items" in schema:
        return [with_defaults(schema["items"], item) for item in value]
    return value


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_valid(example: Path) -> None:
    for document in yaml.safe_load_all(example.read_text()):
        if document["kind"] == "LLMService":
            assert LLMServiceSpec.parse(document["spec"])


def test_an_unknown_field_is_ignored_as_an_api_server_prunes_it(make_spec: Any) -> None:
    assert make_spec(somethingNew={"a": 1}) == make_spec()


@pytest.mark.parametrize(
    "changes",
    [
        {"regions": []},
        {"model": {"name": "m", "source": "nowhere"}},
        {"model": {"name": "m", "source": "file:///m", "sha256": "A" * 64}},
        {"model": {"name": "m", "source": "file:///m", "sha256": "0" * 63}},
        {"traffic": {"maxStream": "soon"}},
        {"traffic": {"mode": "Sometimes"}},
        {"defaults": {"replicas": {"min": -1}}},
    ],
)
def test_what_the_schema_forbids_the_types_refuse(make_spec: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_spec(**changes)


def test_a_route_survives_json() -> None:
    route = Route(
        namespace="n", service="s", model="m", region="a", regions=(RegionTarget(name="a", address="198.18.0.11"),)
    )
    assert Route.parse(json.loads(json.dumps(route.wire()))) == route


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_runbook(reason: Reason) -> None:
    page = ROOT / "runbooks" / f"{reason}.md"
    assert page.is_file(), f"write runbooks/{reason}.md"
    assert page.read_text().startswith(f"# {reason}\n")
