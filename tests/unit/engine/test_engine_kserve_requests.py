"""Requests of the v2 protocol as Triton's client writes them, over both transports, and what they ask for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc._utils import _get_inference_request as grpc_message

from holdfast_engine.admission import Priority
from holdfast_engine.errors import InvalidRequestError
from holdfast_engine.kserve import bodies, messages, metadata, outputs
from holdfast_engine.kserve.requests import INPUTS, Asked, InferRequest, ask
from holdfast_engine.kserve.tensors import Tensor, from_values
from holdfast_engine.reading import NewText

NUMPY: dict[str, Any] = {"BYTES": np.object_, "BOOL": np.bool_, "INT32": np.int32, "INT64": np.int64}

HIGH, NORMAL, LOW = Priority


def tensors(**values: Any) -> list[Tensor]:
    """Inputs by name; the datatype is the first that the input knows."""
    made = []
    for name, value in values.items():
        elements = value if isinstance(value, list) else [value]
        made.append(from_values(name, INPUTS.get(name, ("BYTES",))[0], [len(elements)], elements))
    return made


def asked(parameters: dict[str, Any] | None = None, wanted: tuple[str, ...] = (), **values: Any) -> Asked:
    return ask(InferRequest("tiny", inputs=tensors(**values), wanted=wanted, parameters=parameters or {}))


def by_http(request: InferRequest, binary: bool) -> InferRequest:
    """The request as the client writes it and the engine reads it."""
    inputs = []
    for each in request.inputs:
        inputs.append(triton_http.InferInput(each.name, each.shape, each.datatype))
        inputs[-1].set_data_from_numpy(np.array(each.values, dtype=NUMPY[each.datatype]), binary_data=binary)
    wanted = [triton_http.InferRequestedOutput(name, binary_data=binary) for name in request.wanted]
    priority, timeout = request.parameters["priority"], request.parameters["timeout"]
    body, length = triton_http.InferenceServerClient.generate_request_body(
        inputs, wanted, request.id, priority=priority, timeout=timeout
    )
    read, form = bodies.parse_infer(request.model, "", body, None if length is None else str(length))
    assert form == {"": not wanted, **dict.fromkeys(request.wanted, binary)}
    return read


def by_grpc(request: InferRequest) -> InferRequest:
    inputs = []
    for each in request.inputs:
        inputs.append(triton_grpc.InferInput(each.name, each.shape, each.datatype))
        inputs[-1].set_data_from_numpy(np.array(each.values, dtype=NUMPY[each.datatype]))
    wanted = [triton_grpc.InferRequestedOutput(name) for name in request.wanted]
    schedule = (request.parameters["priority"], request.parameters["timeout"])
    return messages.read_request(
        grpc_message(request.model, inputs, "", request.id, wanted, 0, False, False, *schedule, None)
    )


@given(
    text=st.text(min_size=1).filter(lambda text: text.isprintable()),
    id=st.text(alphabet="abc1", max_size=5),
    stream=st.booleans(),
    max_tokens=st.integers(1, 1000),
    wanted=st.sets(st.sampled_from(sorted(outputs.OUTPUTS))),
    priority=st.integers(1, 5),
    timeout=st.integers(1, 10**9),
)
def test_a_request_means_the_same_by_http_and_by_grpc(
    text: str, id: str, stream: bool, max_tokens: int, wanted: set[str], priority: int, timeout: int
) -> None:
    inputs = tensors(text_input=text, stream=stream, sampling_parameters=json.dumps({"max_tokens": max_tokens}))
    schedule = {"priority": priority, "timeout": timeout}
    request = InferRequest("tiny", "", id, inputs, sorted(wanted), schedule)
    meant = ask(request)
    assert meant.completion.prompt == text
    assert (meant.completion.token_limit, meant.stream) == (max_tokens, stream)
    assert set(meant.outputs) == (wanted or {"text_output"})
    assert (meant.priority, meant.timeout) == ([HIGH, NORMAL, LOW, LOW, LOW][priority - 1], timeout / 1_000_000)
    for read in (by_http(request, binary=True), by_http(request, binary=False), by_grpc(request)):
        assert read.id == id
        assert ask(read) == meant


@given(
    texts=st.lists(st.text(), min_size=1, max_size=1),
    ids=st.lists(st.integers(0, 2**31 - 1)),
    binary=st.booleans(),
)
def test_an_answer_is_read_by_the_client_as_it_was_written(texts: list[str], ids: list[int], binary: bool) -> None:
    meant = asked(text_input="a", wanted=tuple(outputs.OUTPUTS))
    made = outputs.tensors(meant, outputs.Told(NewText(texts[0], ids, "stop"), [8, 9], 7, len(ids)))
    body, length = bodies.infer_body("tiny", "1", "r", made, {"": binary})
    http = triton_http.InferResult.from_response_body(body, header_length=length)
    grpc = triton_grpc.InferResult(messages.response("tiny", "1", "r", made))
    for result in (http, grpc):
        found = {name: result.as_numpy(name).tolist() for name in outputs.OUTPUTS}
        (text,), (reason,) = found["text_output"], found["finish_reason"]
        assert (text if isinstance(text, str) else text.decode()) == texts[0]
        assert (reason if isinstance(reason, str) else reason.decode()) == "stop"
        assert (found["output_ids"], found["prompt_ids"]) == (ids, [8, 9])
        assert (found["num_input_tokens"], found["num_output_tokens"]) == ([7], [len(ids)])


def test_generate_takes_inputs_and_parameters_at_both_levels() -> None:
    nested = {"text_input": "a", "parameters": {"stream": True, "max_tokens": 3, "priority": 1}}
    flat = {"text_input": "a", "stream": True, "max_tokens": 3, "priority": 1}
    as_input = {"text_input": "a", "stream": True, "sampling_parameters": {"max_tokens": 3}, "priority": 1}
    meant = [ask(bodies.parse_generate("tiny", "", json.dumps(each).encode())) for each in (nested, flat, as_input)]
    assert meant[0] == meant[1] == meant[2]
    assert (meant[0].stream, meant[0].completion.token_limit, meant[0].priority) == (True, 3, HIGH)


def test_the_prompt_comes_before_whole_answers_only_and_can_be_left_out() -> None:
    assert asked(text_input="a").prepended == "a"
    assert asked(text_input="a", exclude_input_in_output=True).prepended == ""
    assert asked(text_input="a", stream=True).prepended == ""
    assert asked(input_ids=[1, 2]).prepended == ""


def test_token_ids_come_as_either_integer() -> None:
    for datatype in ("INT32", "INT64"):
        request = InferRequest("tiny", inputs=[Tensor("input_ids", datatype, (1, 2), [3, 4])])
        assert ask(request).completion.prompt == [3, 4]


def test_numbers_may_be_strings_and_stop_strings_stay_strings() -> None:
    sampling = {"temperature": "0.5", "max_tokens": "7", "ignore_eos": "True", "stop": ["1", "2"]}
    completion = asked(text_input="a", sampling_parameters=json.dumps(sampling)).completion
    assert (completion.temperature, completion.max_tokens, completion.ignore_eos) == (0.5, 7, True)
    assert completion.stops == ["1", "2"]


@pytest.mark.parametrize(
    ("parameters", "values", "said"),
    [
        ({}, {}, "either as `text_input` or as `input_ids`"),
        ({}, {"text_input": "a", "input_ids": [1]}, "either as `text_input` or as `input_ids`"),
        ({}, {"text_input": ""}, "`text_input` must not be empty"),
        ({}, {"input_ids": []}, "`input_ids` must not be empty"),
        ({}, {"text_input": ["a", "b"]}, "must have one element"),
        ({}, {"text_input": b"\xff"}, "not UTF-8"),
        ({}, {"text_input": "a", "image": "b"}, "no input `image`"),
        ({}, {"text_input": "a", "stream": True, "exclude_input_in_output": False}, "never repeats its prompt"),
        ({}, {"input_ids": [1], "exclude_input_in_output": False}, "is not repeated"),
        ({}, {"text_input": "a", "sampling_parameters": "{"}, "not valid JSON"),
        ({}, {"text_input": "a", "sampling_parameters": "[1]"}, "must be a JSON object"),
        ({"top_k": 5}, {"text_input": "a"}, "`top_k` is not supported"),
        ({"temperature": "hot"}, {"text_input": "a"}, "temperature: "),
        ({"max_tokens": 0}, {"text_input": "a"}, "max_tokens: "),
        ({"presence_penalty": 1.0}, {"text_input": "a"}, "presence_penalty is not supported"),
        ({"priority": -1}, {"text_input": "a"}, "`priority` must be a whole number"),
        ({"timeout": "1"}, {"text_input": "a"}, "`timeout` must be a whole number"),
    ],
)
def test_what_cannot_be_done_is_refused(parameters: dict[str, Any], values: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        asked(parameters, **values)


def test_reserved_parameters_are_no_sampling_parameters() -> None:
    reserved = {"sequence_id": 0, "triton_enable_empty_final_response": True, "binary_data_output": True}
    assert asked(reserved, text_input="a") == asked(text_input="a")


@pytest.mark.parametrize(
    ("body", "length", "said"),
    [
        (b"{", None, "not valid JSON"),
        (b"[]", None, "must be a JSON object"),
        (b"{}", None, "inputs: "),
        (b'{"inputs": []}', None, "inputs: "),
        (b'{"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1]}]}', None, "neither data nor binary"),
        (b'{"inputs": [{"name": "x", "parameters": {"binary_data_size": 4}}]}', None, "announces 4 bytes; 0 are left"),
        (b'{"inputs": [{"name": "x", "datatype": "BOOL", "shape": [1], "data": [true]}]}z', "77", "1 bytes after"),
        (b"{}", "x", "'x' is no length"),
        (b"{}", "9", "'9' is no length"),
    ],
)
def test_a_broken_body_is_refused(body: bytes, length: str | None, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        bodies.parse_infer("tiny", "", body, length)


def test_the_metadata_names_every_input_and_output() -> None:
    described = metadata.model("tiny")
    assert [each["name"] for each in described["inputs"]] == list(INPUTS)
    assert [each["name"] for each in described["outputs"]] == list(outputs.OUTPUTS)
