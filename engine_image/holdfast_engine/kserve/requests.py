"""What a v2 request asks for: prompt, sampling, outputs, schedule. Pure.

The inputs are those of Triton's vLLM backend (its `src/model.py`), and `input_ids`, a prompt of token ids. How sampling
parameters are checked is `protocol.CompletionRequest`'s matter, the same as on OpenAI's routes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast_engine.admission import Priority
from holdfast_engine.errors import InvalidRequestError
from holdfast_engine.kserve.tensors import Tensor
from holdfast_engine.protocol import CompletionRequest, validated

TEXT, IDS, STREAM, SAMPLING = "text_input", "input_ids", "stream", "sampling_parameters"
EXCLUDE_INPUT = "exclude_input_in_output"
TEXT_OUTPUT = "text_output"
OPTIONAL_OUTPUTS = ("finish_reason", "num_input_tokens", "num_output_tokens", "output_ids", "prompt_ids")
"""Given when named among the wanted outputs, or with the input `return_…`."""
TOKEN_IDS = frozenset({"output_ids", "prompt_ids"})
INPUTS: dict[str, tuple[str, ...]] = {
    TEXT: ("BYTES",),
    IDS: ("INT32", "INT64"),
    STREAM: ("BOOL",),
    SAMPLING: ("BYTES",),
    EXCLUDE_INPUT: ("BOOL",),
    **{f"return_{name}": ("BOOL",) for name in OPTIONAL_OUTPUTS},
}
"""Each input's datatypes, the usual one first."""
SAMPLING_PARAMETERS = ("max_tokens", "temperature", "top_p", "seed", "stop", "ignore_eos", "n")
_RESERVED = frozenset({"priority", "timeout", "headers", "binary_data_output"})
"""Request parameters that are not the model's; with those that begin with one of the following."""
_RESERVED_PREFIXES = ("sequence_", "triton_")
MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class InferRequest:
    """A request as it came, whether by HTTP or gRPC; `wanted` are outputs that it names."""

    model: str
    version: str = ""
    id: str = ""
    inputs: Sequence[Tensor] = ()
    wanted: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What is to be generated and given back; the prompt is in `completion`."""

    completion: CompletionRequest
    stream: bool
    outputs: tuple[str, ...]
    prepended: str
    """The text before the answer's: the prompt, unless it is to be left out."""
    priority: Priority
    timeout: float | None
    """Seconds in which the answer is of use."""

    @property
    def wants_ids(self) -> bool:
        return not TOKEN_IDS.isdisjoint(self.outputs)


def ask(request: InferRequest) -> Asked:
    """What `request` asks for; raises InvalidRequestError naming what is wrong."""
    inputs = _by_name(request.inputs)
    stream = _flag(inputs, STREAM) or False
    prompt = _prompt(inputs)
    sampling = _sampling(inputs, request.parameters)
    return Asked(
        completion=_completion(request.model, prompt, sampling),
        stream=stream,
        outputs=_outputs(inputs, request.wanted),
        prepended=_prepended(inputs, prompt, stream),
        priority=_priority(request.parameters),
        timeout=_whole_number(request.parameters, "timeout") / MICROSECONDS or None,
    )


def _by_name(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    inputs: dict[str, Tensor] = {}
    for tensor in tensors:
        name = tensor.name
        if name in inputs:
            raise InvalidRequestError(f"The input `{name}` is given twice.", param=name)
        if name not in INPUTS:
            raise InvalidRequestError(f"There is no input `{name}`; known are {', '.join(INPUTS)}.", param=name)
        if tensor.datatype not in INPUTS[name]:
            types = " or ".join(INPUTS[name])
            raise InvalidRequestError(f"The input `{name}` must be {types}, not {tensor.datatype}.", param=name)
        if name != IDS and len(tensor.values) != 1:
            raise InvalidRequestError(f"The input `{name}` must have one element (shape [1]).", param=name)
        inputs[name] = tensor
    return inputs


def _flag(inputs: Mapping[str, Tensor], name: str) -> bool | None:
    return bool(inputs[name].values[0]) if name in inputs else None


def _text(inputs: Mapping[str, Tensor], name: str) -> str:
    try:
        return str(inputs[name].values[0], "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"The input `{name}` is not UTF-8: {error}", param=name) from error


def _prompt(inputs: Mapping[str, Tensor]) -> str | list[int]:
    if (TEXT in inputs) == (IDS in inputs):
        raise InvalidRequestError(f"Give the prompt either as `{TEXT}` or as `{IDS}`.", param=TEXT)
    prompt = _text(inputs, TEXT) if TEXT in inputs else list(inputs[IDS].values)
    if not prompt:
        name = TEXT if TEXT in inputs else IDS
        raise InvalidRequestError(f"The input `{name}` must not be empty.", param=name)
    return prompt


def _prepended(inputs: Mapping[str, Tensor], prompt: str | list[int], stream: bool) -> str:
    """As Triton's vLLM backend has it: the prompt comes before whole answers, unless they are to exclude it."""
    exclude = _flag(inputs, EXCLUDE_INPUT)
    if exclude is False and stream:
        raise InvalidRequestError(
            f"A stream never repeats its prompt: leave out `{EXCLUDE_INPUT}`.", param=EXCLUDE_INPUT
        )
    if exclude is False and not isinstance(prompt, str):
        raise InvalidRequestError(f"A prompt of token ids is not repeated: leave out `{EXCLUDE_INPUT}`.", param=IDS)
    return prompt if isinstance(prompt, str) and not (exclude or stream) else ""


def _outputs(inputs: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[str, ...]:
    known = (TEXT_OUTPUT, *OPTIONAL_OUTPUTS)
    for name in wanted:
        if name not in known:
            raise InvalidRequestError(f"There is no output `{name}`; known are {', '.join(known)}.", param=name)
    if wanted:
        return tuple(name for name in known if name in wanted)
    return (TEXT_OUTPUT, *(name for name in OPTIONAL_OUTPUTS if _flag(inputs, f"return_{name}")))


def _sampling(inputs: Mapping[str, Tensor], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling parameters: the input of that name, or else the request's parameters."""
    if SAMPLING not in inputs:
        return {name: value for name, value in parameters.items() if not _reserved(name)}
    try:
        fields = json.loads(_text(inputs, SAMPLING))
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"The input `{SAMPLING}` is not valid JSON: {error}", param=SAMPLING) from error
    if not isinstance(fields, dict):
        raise InvalidRequestError(f"The input `{SAMPLING}` must be a JSON object.", param=SAMPLING)
    return fields


def _reserved(name: str) -> bool:
    return name in _RESERVED or name.startswith(_RESERVED_PREFIXES)


def _completion(model: str, prompt: str | list[int], sampling: Mapping[str, Any]) -> CompletionRequest:
    for name in sampling:
        if name not in SAMPLING_PARAMETERS and name not in CompletionRequest.UNSUPPORTED:
            known = ", ".join(SAMPLING_PARAMETERS)
            raise InvalidRequestError(
                f"The sampling parameter `{name}` is not supported; known are {known}.", param=name
            )
    fields = {name: _number(name, value) for name, value in sampling.items()}
    return validated(CompletionRequest, {**fields, "model": model, "prompt": prompt})


def _number(name: str, value: Any) -> Any:
    """Numbers may be written as strings, as in many of Triton's examples; stop strings stay what they are."""
    if name == "stop" or not isinstance(value, str):
        return value
    try:
        return json.loads(value.lower())
    except (ValueError, RecursionError):
        return value


def _priority(parameters: Mapping[str, Any]) -> Priority:
    """Triton's numbers: 1 is the highest, larger ones are lower, 0 stands for the default."""
    number = _whole_number(parameters, "priority")
    return {0: Priority.NORMAL, 1: Priority.HIGH, 2: Priority.NORMAL}.get(number, Priority.LOW)


def _whole_number(parameters: Mapping[str, Any], name: str) -> int:
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequestError(f"The parameter `{name}` must be a whole number, 0 or more.", param=name)
    return value
