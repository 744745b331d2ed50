"""What the server and its model say of themselves, in JSON; gRPC's messages have the same fields. Pure."""

from __future__ import annotations

from typing import Any

from holdfast_engine.kserve.outputs import OUTPUTS
from holdfast_engine.kserve.requests import IDS, INPUTS, TOKEN_IDS

Json = dict[str, Any]
VERSION = "1"
"""Of the model: an engine has one."""
_VARYING = {IDS, *TOKEN_IDS}


def server(version: str) -> Json:
    extensions = ["binary_tensor_data", "generate", "model_configuration", "model_repository", "parameters"]
    return {"name": "holdfast", "version": version, "extensions": [*extensions, "schedule_policy"]}


def model(name: str) -> Json:
    return {
        "name": name,
        "versions": [VERSION],
        "platform": "holdfast",
        "inputs": [{"name": each, "datatype": types[0], "shape": _shape(each)} for each, types in INPUTS.items()],
        "outputs": [{"name": each, "datatype": datatype, "shape": _shape(each)} for each, datatype in OUTPUTS.items()],
    }


def config(name: str) -> Json:
    """The model's configuration in Triton's form."""
    return {
        "name": name,
        "platform": "",
        "backend": "holdfast",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,
        "input": [{**_configured(each, types[0]), "optional": True} for each, types in INPUTS.items()],
        "output": [_configured(each, datatype) for each, datatype in OUTPUTS.items()],
        "model_transaction_policy": {"decoupled": True},
    }


def index(name: str, ready: bool, reason: str) -> list[Json]:
    """The repository, in which there is one model."""
    return [{"name": name, "version": VERSION, "state": "READY" if ready else "UNAVAILABLE", "reason": reason}]


def _configured(name: str, datatype: str) -> Json:
    return {
        "name": name,
        "data_type": "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}",
        "dims": _shape(name),
    }


def _shape(name: str) -> list[int]:
    return [-1] if name in _VARYING else [1]
