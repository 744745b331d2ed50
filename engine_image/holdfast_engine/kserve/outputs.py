"""Answers as tensors. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast_engine.kserve.requests import TEXT_OUTPUT, Asked
from holdfast_engine.kserve.tensors import Tensor, text_tensor
from holdfast_engine.reading import NewText

OUTPUTS = {
    TEXT_OUTPUT: "BYTES",
    "finish_reason": "BYTES",
    "num_input_tokens": "UINT32",
    "num_output_tokens": "UINT32",
    "output_ids": "INT32",
    "prompt_ids": "INT32",
}


@dataclass(frozen=True)
class Told:
    """A piece of an answer. `prompt_ids` come with the first one; `output_tokens` are those of this piece."""

    new: NewText
    prompt_ids: list[int]
    input_tokens: int
    output_tokens: int


def tensors(asked: Asked, told: Told) -> list[Tensor]:
    """The outputs that were asked for. As Triton's vLLM backend has it, no finish reason yet is "None"."""
    texts = {TEXT_OUTPUT: told.new.text, "finish_reason": str(told.new.reason)}
    numbers = {
        "num_input_tokens": [told.input_tokens],
        "num_output_tokens": [told.output_tokens],
        "output_ids": told.new.token_ids,
        "prompt_ids": told.prompt_ids,
    }
    return [
        text_tensor(name, texts[name])
        if name in texts
        else Tensor(name, OUTPUTS[name], (len(numbers[name]),), numbers[name])
        for name in asked.outputs
    ]
