"""Answers as tensors. Pure."""

from __future__ import annotations

from holdfast_engine.kserve.requests import TEXT_OUTPUT, Asked
from holdfast_engine.kserve.tensors import Tensor, text_tensor
from holdfast_engine.reading import NewText

OUTPUTS = {
    TEXT_OUTPUT: "BYTES",
    "finish_reason": "BYTES",
    "num_input_tokens": "UINT32",
    "num_output_tokens": "UINT32",
    "output_ids": "INT32",
}


def tensors(asked: Asked, new: NewText, input_tokens: int, output_tokens: int) -> list[Tensor]:
    """The outputs that were asked for. `output_tokens` are those of this piece, as in Triton's vLLM backend, which also
    writes "None" for the finish reason until there is one."""
    made = {
        TEXT_OUTPUT: lambda: text_tensor(TEXT_OUTPUT, new.text),
        "finish_reason": lambda: text_tensor("finish_reason", str(new.reason)),
        "num_input_tokens": lambda: _counts("num_input_tokens", "UINT32", [input_tokens]),
        "num_output_tokens": lambda: _counts("num_output_tokens", "UINT32", [output_tokens]),
        "output_ids": lambda: _counts("output_ids", "INT32", new.token_ids),
    }
    return [made[name]() for name in asked.outputs]


def _counts(name: str, datatype: str, values: list[int]) -> Tensor:
    return Tensor(name, datatype, (len(values),), list(values))
