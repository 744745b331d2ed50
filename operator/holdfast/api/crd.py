"""The CustomResourceDefinitions, generated from the types of this package.

A Kubernetes structural schema is a subset of OpenAPI 3.0: no `$ref`, no `title`, no `anyOf` for optional fields.
pydantic writes JSON Schema, so the generator inlines, prunes and orders it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from holdfast.api.llmservice import LLMServiceSpec, LLMServiceStatus
from holdfast.api.names import GROUP, VERSION
from holdfast.api.region import RegionSpec, RegionStatus
from holdfast.api.regionplan import RegionPlanSpec
from holdfast.api.schema import Schema, format_duration

_DROPPED = ("title", "$defs", "additionalProperties")


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`; `path` is a JSONPath into the object."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True)
class Definition:
    """What a CRD says beside its schema."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    namespaced: bool
    description: str
    spec: type[Schema]
    status: type[Schema] | None = None
    columns: tuple[Column, ...] = ()
    scale: Mapping[str, str] = field(default_factory=dict)


def _condition(kind: str, of: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{of}'


DEFINITIONS = (
    Definition(
        kind="LLMService",
        plural="llmservices",
        short_names=("llm",),
        namespaced=True,
        description="One language model, served in several regions.",
        spec=LLMServiceSpec,
        status=LLMServiceStatus,
        columns=(
            Column("Model", ".spec.model.name"),
            Column("Engine", ".spec.engine.type"),
            Column("Accepted", _condition("Accepted", "status")),
            Column("Available", _condition("Available", "status")),
            Column("Ready", ".status.readyReplicas", "integer"),
            Column("Replicas", ".status.replicas", "integer"),
            Column("Warm", ".status.warmReplicas", "integer", wide=True),
            Column("Revision", ".status.revision", wide=True),
            Column("Why", _condition("Available", "message"), wide=True),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
        scale={
            "specReplicasPath": ".spec.defaults.replicas.min",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    ),
    Definition(
        kind="Region",
        plural="regions",
        short_names=(),
        namespaced=False,
        description="One Kubernetes cluster that serves, and how its gateway is reached.",
        spec=RegionSpec,
        status=RegionStatus,
        columns=(
            Column("Role", ".spec.role"),
            Column("Gateway", ".spec.gateway.address"),
            Column("Seen", ".status.verdict"),
            Column("Reachable", _condition("Reachable", "status")),
            Column("Why", _condition("Reachable", "message"), wide=True),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    ),
    Definition(
        kind="RegionPlan",
        plural="regionplans",
        short_names=("plan",),
        namespaced=True,
        description="What one region must run and route for one service. Written by the leader only; do not edit.",
        spec=RegionPlanSpec,
        columns=(
            Column("Epoch", ".spec.epoch", "integer"),
            Column("Leader", ".spec.leader"),
            Column("Edit", ".spec.number", "integer"),
            Column("Replicas", ".spec.replicas", "integer"),
            Column("Warm", ".spec.warm", "integer"),
            Column("Revision", ".spec.revision", wide=True),
            Column("Age", ".metadata.creationTimestamp", "date"),
        ),
    ),
)


class _WireDefaults(GenerateJsonSchema):
    """Writes defaults as users would: `15m` for a duration, no nulls inside objects."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, timedelta):
            return format_duration(dft)
        return dft.wire() if isinstance(dft, Schema) else super().encode_default(dft)


def structural(model: type[Schema]) -> dict[str, Any]:
    """The Kubernetes structural schema of a type."""
    schema = model.model_json_schema(by_alias=True, schema_generator=_WireDefaults)
    return _inline(schema, schema.get("$defs", {}))


def _inline(node: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[-1]]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    if "anyOf" in node:
        node = _without_any_of(node)
        return _inline(node, definitions)
    result = {key: value for key, value in node.items() if key not in _DROPPED}
    if result.get("default", ...) in (None, ""):  # an empty text says nothing, and Helm would write null for it
        del result["default"]
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if "properties" in result:
        result["properties"] = {name: _inline(child, definitions) for name, child in result["properties"].items()}
    if "items" in result:
        result["items"] = _inline(result["items"], definitions)
    if isinstance(values := node.get("additionalProperties"), dict):
        result["additionalProperties"] = _inline(values, definitions)
    return result


def _without_any_of(node: dict[str, Any]) -> dict[str, Any]:
    """Optional fields lose their null branch; an int-or-string keeps only the extension that says so."""
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    if rest.get("x-kubernetes-int-or-string"):
        return rest
    branches = [branch for branch in node["anyOf"] if branch.get("type") != "null"]
    if len(branches) != 1:
        raise TypeError(f"a structural schema cannot hold a union: {branches}")
    return {**branches[0], **rest}


def definition(of: Definition) -> dict[str, Any]:
    """The CustomResourceDefinition manifest (apiextensions.k8s.io/v1)."""
    properties: dict[str, Any] = {
        "apiVersion": {"type": "string", "description": "Version of this representation of the object."},
        "kind": {"type": "string", "description": "Kind of the object."},
        "metadata": {"type": "object"},
        "spec": structural(of.spec),
    }
    subresources: dict[str, Any] = {}
    if of.status:
        properties["status"] = structural(of.status)
        subresources["status"] = {}
    if of.scale:
        subresources["scale"] = dict(of.scale)
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {
            "openAPIV3Schema": {
                "description": of.description,
                "type": "object",
                "required": ["spec"],
                "properties": properties,
            }
        },
        "additionalPrinterColumns": [_column(column) for column in of.columns],
        **({"subresources": subresources} if subresources else {}),
    }
    names = {"kind": of.kind, "listKind": f"{of.kind}List", "plural": of.plural, "singular": of.kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{of.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if of.namespaced else "Cluster",
            "names": {**names, **({"shortNames": list(of.short_names)} if of.short_names else {})},
            "versions": [version],
        },
    }


def _column(column: Column) -> dict[str, Any]:
    priority = {"priority": 1} if column.wide else {}
    return {"name": column.name, "type": column.type, "jsonPath": column.path, **priority}
