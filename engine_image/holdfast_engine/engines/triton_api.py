"""What Triton is told and what it answers: arguments, models, requests, streams, errors. Pure.

The contract is that of Triton's vLLM backend (its `src/model.py` and `docs/additional_outputs.md`), which any decoupled
model may keep: inputs `text_input`, `stream`, `sampling_parameters`, output `text_output`. What is beyond these is used
where a model has it: `return_finish_reason`, `return_num_input_tokens`, `return_num_output_tokens` with their outputs;
and, as in front of every engine here (`holdfast_engine/kserve/`), `input_ids`, `output_ids` and `prompt_ids`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from holdfast_engine.engines.served import UnsuitableError
from holdfast_engine.errors import EngineError, InvalidRequestError, UnavailableError
from holdfast_engine.kserve import messages
from holdfast_engine.kserve.tensors import Tensor, text_tensor
from holdfast_engine.port import Accepted, Event, Output, Step, Task

RESERVED = (
    *("grpc", "http", "metrics-address", "metrics-port", "sagemaker", "vertex-ai"),
    *("allow-grpc", "allow-http", "allow-sagemaker", "allow-vertex-ai", "reuse-grpc", "reuse-http"),
)
"""Beginnings of arguments that are the shim's own: it alone talks to the child."""
REPOSITORY = ("model-repository", "model-store")
NEEDED_INPUTS = ("text_input", "stream", "sampling_parameters")
COUNTS = ("finish_reason", "num_input_tokens", "num_output_tokens")
IDS = ("prompt_ids", "output_ids")
_NO_CHAT = "Triton's models take text, and the engine does not know their chat template: use /v1/completions."
_NO_IDS = "The model has no input `input_ids`: give the prompt as text."
_CONTEXT = re.compile(r"maximum (model|context) length|longer than the maximum|max_tokens.* too large", re.I)
_ABOUT_PROMPT = re.compile(r"out of vocabulary|out of range|token id", re.I)
_DEAD = re.compile(
    r"Stub process .*(not healthy|unhealthy)|EngineDeadError|EngineCore encountered an issue|unhealthy vLLM engine",
    re.I,
)
"""What Triton's Python and vLLM backends say of every request once the process behind them has ended."""


def arguments(user: Sequence[str], with_model: bool, grpc_port: int, metrics_port: int) -> list[str]:
    """The child's arguments besides the repository that the shim was given, if it was (`with_model`).

    Raises ValueError when the user's hold one that is the shim's own, or there is no model.
    """
    names = [argument.partition("=")[0].removeprefix("--") for argument in user if argument.startswith("--")]
    for name in names:
        if name.startswith(RESERVED):
            raise ValueError(f"--{name} is set by the shim, in front of which clients are.")
    if not with_model and not any(name in REPOSITORY for name in names):
        raise ValueError("Triton needs --model with its repository, or --model-repository after --.")
    own = ["--allow-http=false", "--grpc-address", "127.0.0.1", "--grpc-port", str(grpc_port)]
    return [*user, *own, "--metrics-address", "127.0.0.1", "--metrics-port", str(metrics_port)]


@dataclass(frozen=True)
class Model:
    """What a model takes and gives: datatypes by name."""

    name: str
    inputs: Mapping[str, str]
    """Of types that are not asked for here: ""."""
    outputs: frozenset[str]
    batched: bool
    """Whether shapes begin with the size of a batch."""

    @property
    def tells_ids(self) -> bool:
        return self.outputs.issuperset(IDS)


def choose(index: pb.RepositoryIndexResponse, wanted: str | None) -> str:
    """The model's name; raises UnsuitableError when it is not there, or not clear which is meant."""
    ready: list[str] = sorted({model.name for model in index.models if model.state == "READY"})
    if wanted is not None and wanted in ready:
        return wanted
    if wanted is None and len(ready) == 1:
        return ready[0]
    said = f"Triton serves {', '.join(ready) or 'no model'}"
    raise UnsuitableError(f"{said}: name one with --triton-model." if wanted is None else f"{said}, but not {wanted}.")


def model(config: Any) -> Model:
    """A model by its configuration, Triton's ModelConfig; raises UnsuitableError when it cannot be asked for text."""
    inputs = {each.name: _datatype(each.data_type) for each in config.input}
    outputs = frozenset(each.name for each in config.output)
    for name in NEEDED_INPUTS:
        if name not in inputs:
            raise UnsuitableError(f"The model {config.name} has no input `{name}`, as Triton's vLLM backend has.")
    if "text_output" not in outputs:
        raise UnsuitableError(f"The model {config.name} has no output `text_output`.")
    if not config.model_transaction_policy.decoupled:
        raise UnsuitableError(f"The model {config.name} is not decoupled: it cannot answer in pieces.")
    return Model(str(config.name), inputs, outputs, config.max_batch_size > 0)


def _datatype(number: int) -> str:
    """By the numbers of Triton's enumeration DataType."""
    return {1: "BOOL", 8: "INT32", 9: "INT64", 13: "BYTES"}.get(number, "")


def request(task: Task, model: Model) -> pb.ModelInferRequest:
    """The message that asks for `task`; raises InvalidRequestError for what the model cannot do."""
    if task.messages is not None:
        raise InvalidRequestError(_NO_CHAT, param="messages", code="unsupported")
    tensors = [_prompt(task, model), Tensor("stream", "BOOL", (1,), [True])]
    tensors.append(text_tensor("sampling_parameters", json.dumps(_sampling(task))))
    counts = [name for name in COUNTS if f"return_{name}" in model.inputs and name in model.outputs]
    tensors += [Tensor(f"return_{name}", "BOOL", (1,), [True]) for name in counts]
    wanted = ["text_output", *counts, *(IDS if model.tells_ids else ())]
    if model.batched:
        tensors = [Tensor(each.name, each.datatype, (1, *each.shape), each.values) for each in tensors]
    return messages.request(model.name, str(task.id), tensors, wanted, {"triton_enable_empty_final_response": True})


def _prompt(task: Task, model: Model) -> Tensor:
    if task.token_ids is None:
        return text_tensor("text_input", task.text or "")
    if "input_ids" not in model.inputs:
        raise InvalidRequestError(_NO_IDS, param="prompt", code="unsupported")
    return Tensor("input_ids", model.inputs["input_ids"], (len(task.token_ids),), task.token_ids)


def _sampling(task: Task) -> dict[str, Any]:
    sampling = task.sampling
    fields: dict[str, Any] = {name: getattr(sampling, name) for name in sorted(task.chosen)}
    if sampling.max_tokens is not None:
        fields["max_tokens"] = sampling.max_tokens
    if sampling.ignore_eos:
        fields["ignore_eos"] = True
    if task.stops:
        fields |= {"stop": list(task.stops), "include_stop_str_in_output": True}
    return fields


class AnswerStream:
    """One task's answer, read from the responses of its stream."""

    def __init__(self, task: Task) -> None:
        self.ended = False
        """Whether the last response has come."""
        self._task = task
        self._begun = False
        self._count = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, message: pb.ModelStreamInferResponse) -> list[Event]:
        """What a response reports; raises EngineError when it tells of one."""
        if message.error_message:
            raise told_error("UNKNOWN", message.error_message)
        found = {each.name: each.values for each in messages.read_outputs(message.infer_response)}
        self.ended = message.infer_response.parameters[messages.FINAL].bool_param
        if not found and not self.ended:
            return []
        output = self._output(found)
        if self._begun:
            return [Step(outputs=[output])]
        self._begun = True
        told = found.get("num_input_tokens")
        prompt_ids = self._task.token_ids or list(found.get("prompt_ids", ()))
        accepted = Accepted(self._task.id, prompt_ids, int(told[0]) if told else None)
        return [accepted, Step(outputs=[output])]

    def _output(self, found: Mapping[str, list[Any]]) -> Output:
        text = self._decoder.decode(b"".join(found.get("text_output", ())), final=self.ended)
        ids = list(found.get("output_ids", ()))
        count = int(found["num_output_tokens"][0]) if "num_output_tokens" in found else len(ids) or int(bool(text))
        self._count += count
        reason = self._reason(b"".join(found.get("finish_reason", ())).decode()) if self.ended else None
        return Output(self._task.id, ids, reason, text, count=count)

    def _reason(self, told: str) -> str:
        """Where a backend tells none, it follows from the number of tokens."""
        if told in ("abort", "error"):
            raise UnavailableError("The engine gave the request up.", code="failed")
        if told in ("stop", "length"):
            return told
        limit = self._task.sampling.max_tokens
        return "length" if limit is not None and self._count >= limit else "stop"


def told_error(code: str, message: str) -> EngineError:
    """The error of a gRPC status by its name. Triton's backends call nearly every error INTERNAL: then its words tell.

    What is not the client's fault may succeed on another engine.
    """
    if _CONTEXT.search(message):
        return InvalidRequestError(message, code="context_length_exceeded", param="prompt")
    if _ABOUT_PROMPT.search(message):
        return InvalidRequestError(message, code="invalid_prompt", param="prompt")
    if code == "INVALID_ARGUMENT":
        return InvalidRequestError(message)
    return UnavailableError(f"The engine answered {code}: {message}", code="failed")


def is_dead(message: str) -> bool:
    """Whether an error tells that no request will ever succeed again."""
    return _DEAD.search(message) is not None


def max_model_len(text: str) -> int | None:
    """From the `model.json` of Triton's vLLM backend; None where it does not say."""
    try:
        found = json.loads(text)["max_model_len"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None
