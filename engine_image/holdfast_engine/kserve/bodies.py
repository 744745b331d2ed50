"""HTTP bodies of the v2 protocol: JSON, with tensors' binary forms behind it, and Triton's generate extension. Pure.

Sources: KServe's v2 protocol; Triton's "Binary Tensor Data" and "Generate" extensions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from holdfast_engine.errors import InvalidRequestError
from holdfast_engine.kserve.requests import INPUTS, TOKEN_IDS, InferRequest
from holdfast_engine.kserve.tensors import Tensor, decode, encode, from_values, to_json
from holdfast_engine.protocol import validated

HEADER_LENGTH = "inference-header-content-length"
Json = dict[str, Any]
_encode_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class _Tensor(BaseModel):
    """An input, or an output that is named."""

    model_config = ConfigDict(strict=True)

    name: str
    datatype: str = ""
    shape: list[int] = Field(default_factory=list)
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: Any = None


class _Infer(BaseModel):
    model_config = ConfigDict(strict=True)

    id: str = ""
    inputs: list[_Tensor] = Field(min_length=1)
    outputs: list[_Tensor] = Field(default_factory=list)
    parameters: dict[str, Any] = Field(default_factory=dict)


def parse_infer(
    model: str, version: str, body: bytes, header_length: str | None
) -> tuple[InferRequest, Mapping[str, bool]]:
    """The request, and which outputs are to be binary ("" = those not named). `header_length` in bytes, as its header
    says it. Raises InvalidRequestError."""
    length = _length(header_length, len(body))
    asked = validated(_Infer, _object(body[:length]))
    request = InferRequest(
        model=model,
        version=version,
        id=asked.id,
        inputs=_inputs(asked.inputs, body[length:]),
        wanted=[output.name for output in asked.outputs],
        parameters=asked.parameters,
    )
    by_default = asked.parameters.get("binary_data_output") is True
    binary = {each.name: each.parameters.get("binary_data", by_default) is True for each in asked.outputs}
    return request, {"": by_default, **binary}


def parse_generate(model: str, version: str, body: bytes) -> InferRequest:
    """The request of the generate extension: fields named as inputs are inputs, the others are parameters."""
    fields = _object(body)
    inner = fields.pop("parameters", {})
    if not isinstance(inner, dict):
        raise InvalidRequestError("parameters: must be an object.", param="parameters")
    id = str(fields.pop("id", ""))
    fields = {**inner, **fields}
    inputs = [_input(name, fields.pop(name)) for name in INPUTS if name in fields]
    return InferRequest(model, version, id, inputs, parameters=fields)


def parse_index(body: bytes) -> bool:
    """Whether only models that are ready are asked for."""
    return bool(body) and _object(body).get("ready") is True


def infer_body(
    model: str, version: str, id: str, tensors: Sequence[Tensor], binary: Mapping[str, bool]
) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON when binary forms follow it."""
    outputs, tail = [], b""
    for tensor in tensors:
        output: Json = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if binary.get(tensor.name, binary[""]):
            data = encode(tensor)
            outputs.append({**output, "parameters": {"binary_data_size": len(data)}})
            tail += data
        else:
            outputs.append({**output, "data": to_json(tensor)})
    head = _encode_json({**_names(model, version, id), "outputs": outputs}).encode()
    with_tail = any("parameters" in output for output in outputs)
    return head + tail, len(head) if with_tail else None


def generate_object(model: str, version: str, id: str, tensors: Sequence[Tensor]) -> Json:
    """The answer of the generate extension: outputs of one element are that element."""
    values = {tensor.name: to_json(tensor) for tensor in tensors}
    plain = {name: each if name in TOKEN_IDS else each[0] for name, each in values.items()}
    return {**_names(model, version, id), **plain}


def _names(model: str, version: str, id: str) -> Json:
    return {"model_name": model, "model_version": version, **({"id": id} if id else {})}


def _length(header: str | None, size: int) -> int:
    if header is None:
        return size
    if not header.isascii() or not header.isdigit() or int(header) > size:
        raise InvalidRequestError(f"{HEADER_LENGTH}: {header!r:.40} is no length within a body of {size} bytes.")
    return int(header)


def _object(data: bytes) -> Json:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"The body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(found, dict):
        raise InvalidRequestError("The body must be a JSON object.", code="invalid_json")
    return found


def _inputs(given: Sequence[_Tensor], tail: bytes) -> list[Tensor]:
    tensors, at = [], 0
    for each in given:
        size = each.parameters.get("binary_data_size")
        if size is None:
            if each.data is None:
                raise InvalidRequestError(
                    f"The input `{each.name}` has neither data nor binary_data_size (shared memory is not supported).",
                    param=each.name,
                )
            tensors.append(from_values(each.name, each.datatype, each.shape, each.data))
            continue
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(tail) - at:
            raise InvalidRequestError(
                f"The input `{each.name}` announces {size!r:.40} bytes; {len(tail) - at} are left after the JSON.",
                param=each.name,
            )
        tensors.append(decode(each.name, each.datatype, each.shape, tail[at : at + size]))
        at += size
    if at != len(tail):
        raise InvalidRequestError(f"{len(tail) - at} bytes after the JSON belong to no input.")
    return tensors


def _input(name: str, value: Any) -> Tensor:
    if name == "sampling_parameters" and isinstance(value, dict):
        value = json.dumps(value)
    elements = value if isinstance(value, list) else [value]
    return from_values(name, INPUTS[name][-1], [len(elements)], elements)
