"""What Triton is told and how its answers are read, with its own messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc import service_pb2 as pb

from holdfast_engine.engines import triton_api
from holdfast_engine.engines.served import UnsuitableError
from holdfast_engine.errors import InvalidRequestError, UnavailableError
from holdfast_engine.kserve import messages
from holdfast_engine.kserve.tensors import Tensor, text_tensor
from holdfast_engine.port import Accepted, Output, Sampling, Step, Task

TYPES = {"BOOL": 1, "INT32": 8, "BYTES": 13, "UINT32": 4}
INPUTS = {"text_input": "BYTES", "stream": "BOOL", "sampling_parameters": "BYTES"}
COUNTED = {f"return_{name}": "BOOL" for name in triton_api.COUNTS}
PLAIN = triton_api.Model("m", INPUTS, frozenset({"text_output"}), batched=False)
COUNTING = triton_api.Model("m", {**INPUTS, **COUNTED}, frozenset({"text_output", *triton_api.COUNTS}), batched=False)
TELLING = triton_api.Model(
    "m", {**INPUTS, **COUNTED, "input_ids": "INT32"}, COUNTING.outputs | set(triton_api.IDS), batched=False
)


def task(**fields: Any) -> Task:
    return Task(7, **{"sampling": Sampling(max_tokens=5), "text": "Once", **fields})


def config(decoupled: bool = True, outputs: tuple[str, ...] = ("text_output",), **inputs: str) -> Any:
    made = model_config_pb2.ModelConfig(name="m")
    made.model_transaction_policy.decoupled = decoupled
    for name, datatype in inputs.items():
        made.input.add(name=name, data_type=TYPES[datatype])
    for name in outputs:
        made.output.add(name=name, data_type=TYPES["BYTES"])
    return made


def index(**states: str) -> pb.RepositoryIndexResponse:
    made = pb.RepositoryIndexResponse()
    for name, state in states.items():
        made.models.add(name=name, version="1", state=state)
    return made


def inputs(message: pb.ModelInferRequest) -> dict[str, Any]:
    """What a message holds, as Triton's model gets it."""
    return {each.name: each.values for each in messages.read_request(message).inputs}


def part(*tensors: Tensor, final: bool = False) -> pb.ModelStreamInferResponse:
    return pb.ModelStreamInferResponse(infer_response=messages.response("m", "1", "7", list(tensors), final))


def number(name: str, *values: int) -> Tensor:
    return Tensor(name, "UINT32", (len(values),), list(values))


def test_the_shims_own_arguments_are_added_and_the_users_kept() -> None:
    made = triton_api.arguments(["--log-verbose=1"], True, 5, 6)
    assert made[0] == "--log-verbose=1"
    assert made[1:] == [
        *("--allow-http=false", "--grpc-address", "127.0.0.1", "--grpc-port", "5"),
        *("--metrics-address", "127.0.0.1", "--metrics-port", "6"),
    ]


@pytest.mark.parametrize("name", ["--grpc-port", "--http-port=9", "--grpc-use-ssl", "--metrics-port", "--allow-grpc=0"])
def test_arguments_that_are_the_shims_own_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"is set by the shim"):
        triton_api.arguments([name], True, 5, 6)


def test_there_must_be_a_repository() -> None:
    with pytest.raises(ValueError, match="needs --model"):
        triton_api.arguments([], False, 5, 6)
    assert "--model-store=/m" in triton_api.arguments(["--model-store=/m"], False, 5, 6)


def test_the_only_model_is_chosen_or_the_one_that_is_named() -> None:
    assert triton_api.choose(index(a="READY", b="UNAVAILABLE"), None) == "a"
    assert triton_api.choose(index(a="READY", b="READY"), "b") == "b"
    with pytest.raises(UnsuitableError, match="serves a, b: name one with --triton-model"):
        triton_api.choose(index(a="READY", b="READY"), None)
    with pytest.raises(UnsuitableError, match="serves no model, but not b"):
        triton_api.choose(index(b="UNAVAILABLE"), "b")


def test_a_model_must_keep_the_contract_of_the_vllm_backend() -> None:
    assert triton_api.model(config(**INPUTS)) == PLAIN
    with pytest.raises(UnsuitableError, match="no input `stream`"):
        triton_api.model(config(text_input="BYTES", sampling_parameters="BYTES"))
    with pytest.raises(UnsuitableError, match="no output `text_output`"):
        triton_api.model(config(outputs=("other",), **INPUTS))
    with pytest.raises(UnsuitableError, match="not decoupled"):
        triton_api.model(config(decoupled=False, **INPUTS))


def test_a_request_says_what_was_chosen_and_no_defaults() -> None:
    asked = task(
        sampling=Sampling(max_tokens=5, temperature=0.5, seed=3), stops=("x",), chosen=frozenset({"temperature"})
    )
    made = triton_api.request(asked, COUNTING)
    found = inputs(made)
    (sampling,) = found.pop("sampling_parameters")
    assert json.loads(sampling) == {
        **{"temperature": 0.5, "max_tokens": 5},
        **{"stop": ["x"], "include_stop_str_in_output": True},
    }
    assert found == {"text_input": [b"Once"], "stream": [True], **{name: [True] for name in COUNTED}}
    assert [each.name for each in made.outputs] == ["text_output", *triton_api.COUNTS]
    assert inputs(triton_api.request(asked, PLAIN)).keys() == INPUTS.keys()


def test_outputs_are_wanted_only_where_the_model_can_be_told_so() -> None:
    mute = triton_api.Model("m", INPUTS, COUNTING.outputs | {"output_ids"}, batched=False)
    made = triton_api.request(task(), mute)
    assert [each.name for each in made.outputs] == ["text_output"]
    assert [each.name for each in triton_api.request(task(), TELLING).outputs] == [
        *("text_output", *triton_api.COUNTS),
        *triton_api.IDS,
    ]


def test_shapes_have_a_batch_where_the_model_batches() -> None:
    batched = triton_api.Model("m", INPUTS, frozenset({"text_output"}), batched=True)
    assert [list(each.shape) for each in triton_api.request(task(), batched).inputs] == [[1, 1]] * 3


def test_token_ids_and_chats_need_a_model_that_takes_them() -> None:
    assert inputs(triton_api.request(task(text=None, token_ids=[4, 5]), TELLING))["input_ids"] == [4, 5]
    with pytest.raises(InvalidRequestError, match="no input `input_ids`"):
        triton_api.request(task(text=None, token_ids=[4, 5]), PLAIN)
    with pytest.raises(InvalidRequestError, match="chat template"):
        triton_api.request(task(text=None, messages=[{"role": "user", "content": "a"}]), TELLING)


def test_an_answer_with_ids_is_read_whole() -> None:
    answer = triton_api.AnswerStream(task())
    counts = (number("num_input_tokens", 4), number("num_output_tokens", 2))
    ids = (number("prompt_ids", 1, 2, 3, 4), number("output_ids", 8, 9))
    first = answer.feed(part(text_tensor("text_output", "ab"), text_tensor("finish_reason", "None"), *counts, *ids))
    last = answer.feed(part(text_tensor("text_output", "c"), text_tensor("finish_reason", "stop"), final=True))
    assert first == [Accepted(7, [1, 2, 3, 4], 4), Step([Output(7, [8, 9], None, "ab", count=2)])]
    assert last == [Step([Output(7, [], "stop", "c", count=1)])]
    assert answer.ended


def test_an_empty_last_response_ends_an_answer_whose_backend_tells_no_reason() -> None:
    for limit, reason in ((2, "length"), (3, "stop")):
        answer = triton_api.AnswerStream(task(sampling=Sampling(max_tokens=limit)))
        for text in ("a", "b"):
            answer.feed(part(text_tensor("text_output", text)))
        assert answer.feed(part(final=True)) == [Step([Output(7, [], reason, "", count=0)])]


def test_an_answer_that_was_given_up_is_an_error() -> None:
    answer = triton_api.AnswerStream(task())
    with pytest.raises(UnavailableError, match="gave the request up"):
        answer.feed(part(text_tensor("finish_reason", "abort"), final=True))


@given(st.text(max_size=8), st.data())
def test_text_cut_anywhere_is_put_together(text: str, data: st.DataObject) -> None:
    encoded = text.encode()
    at = data.draw(st.integers(0, len(encoded)))
    answer = triton_api.AnswerStream(task())
    pieces = [encoded[:at], encoded[at:]]
    found = ""
    for piece in pieces:
        events = answer.feed(part(Tensor("text_output", "BYTES", (1,), [piece]), final=piece is pieces[-1]))
        found += "".join(out.text or "" for event in events if isinstance(event, Step) for out in event.outputs)
    assert found == text


@pytest.mark.parametrize(
    ("code", "message", "kind", "its_code"),
    [
        (
            "INTERNAL",
            "The decoder prompt is longer than the maximum model length of 8",
            InvalidRequestError,
            "context_",
        ),
        ("INTERNAL", "Error generating stream: Token id 600 is out of vocabulary", InvalidRequestError, "invalid_pr"),
        ("INVALID_ARGUMENT", "unexpected shape", InvalidRequestError, "None"),
        ("INTERNAL", "Stub process 'm_0_0' is not healthy.", UnavailableError, "failed"),
        ("UNAVAILABLE", "Socket closed", UnavailableError, "failed"),
    ],
)
def test_errors_are_the_clients_fault_only_where_they_say_so(
    code: str, message: str, kind: type[Exception], its_code: str
) -> None:
    told = triton_api.told_error(code, message)
    assert type(told) is kind
    assert str(told.code).startswith(its_code)


def test_an_error_without_a_status_is_read_from_its_words() -> None:
    with pytest.raises(InvalidRequestError, match="out of vocabulary"):
        triton_api.AnswerStream(task()).feed(
            pb.ModelStreamInferResponse(error_message="Token id 9 is out of vocabulary")
        )


def test_a_dead_process_behind_the_server_is_recognised() -> None:
    assert triton_api.is_dead("Stub process 'tiny_0_0' is not healthy.")
    assert triton_api.is_dead("Model is unavailable due to unhealthy vLLM engine")
    assert not triton_api.is_dead("Request was cancelled")


@pytest.mark.parametrize(
    ("text", "length"),
    [('{"max_model_len": 4096}', 4096), ("{}", None), ("[]", None), ("{", None), ('{"max_model_len": "x"}', None)],
)
def test_the_context_length_is_read_where_the_backend_is_told_one(text: str, length: int | None) -> None:
    assert triton_api.max_model_len(text) == length
