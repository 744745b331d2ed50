"""Between gRPC's messages and the requests and tensors that both transports share. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb

from holdfast_engine.errors import EngineError, InvalidRequestError
from holdfast_engine.kserve.requests import InferRequest
from holdfast_engine.kserve.tensors import Tensor, decode, encode, from_values

FINAL = "triton_final_response"
_CONTENTS = {
    **{"BOOL": "bool_contents", "BYTES": "bytes_contents", "FP32": "fp32_contents", "FP64": "fp64_contents"},
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    **{"INT64": "int64_contents", "UINT64": "uint64_contents"},
}
"""The field of InferTensorContents that holds a datatype's elements."""
_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def status(error: EngineError) -> grpc.StatusCode:
    return _STATUS.get(error.status, grpc.StatusCode.INTERNAL)


def read_request(message: pb.ModelInferRequest) -> InferRequest:
    """The request of a message; raises InvalidRequestError."""
    return InferRequest(
        model=message.model_name,
        version=message.model_version,
        id=message.id,
        inputs=_inputs(message),
        wanted=[output.name for output in message.outputs],
        parameters={name: _parameter(value) for name, value in message.parameters.items()},
    )


def request(
    model: str, id: str, tensors: Sequence[Tensor], wanted: Sequence[str], parameters: Mapping[str, bool]
) -> pb.ModelInferRequest:
    """The message that asks another server."""
    message = pb.ModelInferRequest(model_name=model, id=id)
    for tensor in tensors:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_input_contents.append(encode(tensor))
    for name in wanted:
        message.outputs.add(name=name)
    for name, value in parameters.items():
        message.parameters[name].bool_param = value
    return message


def read_outputs(message: pb.ModelInferResponse) -> list[Tensor]:
    """The outputs of another server's answer, in their binary form."""
    pairs = zip(message.outputs, message.raw_output_contents, strict=True)
    return [decode(each.name, each.datatype, each.shape, data) for each, data in pairs]


def response(
    model: str, version: str, id: str, tensors: list[Tensor], final: bool | None = None
) -> pb.ModelInferResponse:
    """The message of an answer or, with `final`, of a part of one."""
    message = pb.ModelInferResponse(model_name=model, model_version=version, id=id)
    for tensor in tensors:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_output_contents.append(encode(tensor))
    if final is not None:
        message.parameters[FINAL].bool_param = final
    return message


def broken(model: str, version: str, id: str, error: EngineError) -> pb.ModelStreamInferResponse:
    """The last message of a request in a stream that other requests may share."""
    return pb.ModelStreamInferResponse(
        error_message=str(error), infer_response=response(model, version, id, [], final=True)
    )


def _inputs(message: pb.ModelInferRequest) -> list[Tensor]:
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InvalidRequestError(f"raw_input_contents has {len(raw)} elements for {len(message.inputs)} inputs.")
    if raw:
        return [
            decode(each.name, each.datatype, each.shape, data) for each, data in zip(message.inputs, raw, strict=True)
        ]
    return [_from_contents(each) for each in message.inputs]


def _from_contents(tensor: Any) -> Tensor:
    held = _CONTENTS.get(tensor.datatype)
    values = list(getattr(tensor.contents, held)) if held is not None else []
    return from_values(tensor.name, tensor.datatype, tensor.shape, values)


def _parameter(parameter: pb.InferParameter) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)
