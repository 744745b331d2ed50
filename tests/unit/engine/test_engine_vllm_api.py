"""vLLM's HTTP API as the shim speaks it: arguments, requests, answers cut anywhere, errors, signs of progress."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_engine.engines import vllm_api
from holdfast_engine.errors import EngineError, InvalidRequestError, UnavailableError
from holdfast_engine.port import Accepted, Event, Output, Sampling, Step, Task, TokenLogprobs
from holdfast_engine.text import TextAssembler

OWN = ["--disable-uvicorn-access-log", "--served-model-name", "chat", "--host", "127.0.0.1", "--port", "5"]


def test_the_shims_own_arguments_come_last_and_ask_for_priorities() -> None:
    told = vllm_api.arguments(["--dtype", "half"], "chat", 5, "/models/m")
    seats = ["--max-num-seqs", "256"]
    assert told == ["--model", "/models/m", "--dtype", "half", "--scheduling-policy", "priority", *seats, *OWN]


@pytest.mark.parametrize(
    ("user", "knows"),
    [
        (["--scheduling-policy", "fcfs"], False),
        (["--scheduling-policy=fcfs"], False),
        (["--scheduling_policy", "priority"], True),
        (["--scheduling-policy=priority"], True),
        (["--scheduling-policy"], False),
    ],
)
def test_a_policy_of_the_users_is_kept(user: list[str], knows: bool) -> None:
    assert vllm_api.arguments(user, "chat", 5, None)[: len(user) + 1] == [*user, "--max-num-seqs"]
    assert vllm_api.knows_priorities(user) == knows


@pytest.mark.parametrize(
    ("user", "places", "seats"),
    [
        ([], 256, "257"),
        (["--max-num-seqs", "8"], 8, "9"),
        (["--max_num_seqs=8"], 8, "9"),
        (["--max-num-seqs=8", "--max-num-seqs", "3"], 3, "4"),
        (["--max-num-seqs", "8", "--data-parallel-size", "2"], 16, "9"),
    ],
)
def test_the_child_gets_a_place_more_than_users_fill(user: list[str], places: int, seats: str) -> None:
    assert vllm_api.places(user) == places
    told = vllm_api.arguments(user, "chat", 5, None, more_places=1)
    assert told[len(told) - len(OWN) - 2 : -len(OWN)] == ["--max-num-seqs", seats]


def test_a_number_that_is_none_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="--max-num-seqs takes a whole number, not 'many'"):
        vllm_api.arguments(["--max-num-seqs", "many"], "chat", 5, None)


def test_the_child_can_sleep_where_it_will_be_told_to() -> None:
    assert vllm_api.arguments([], "chat", 5, None, sleeps=True).count("--enable-sleep-mode") == 1
    assert vllm_api.arguments(["--enable-sleep-mode"], "chat", 5, None, sleeps=True).count("--enable-sleep-mode") == 1
    assert "--enable-sleep-mode" not in vllm_api.arguments([], "chat", 5, None)


@pytest.mark.parametrize(("user", "most"), [([], 20), (["--max-logprobs=5"], 5), (["--max-logprobs", "-1"], 20)])
def test_as_many_alternatives_as_the_child_tells_are_offered(user: list[str], most: int) -> None:
    assert vllm_api.top_logprobs(user) == most


@pytest.mark.parametrize("name", ["--port", "--port=9", "--served_model_name", "--api-key", "--ssl-keyfile"])
def test_an_argument_that_is_the_shims_own_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is set by the shim"):
        vllm_api.arguments([name], "chat", 5, None)


def test_a_request_holds_what_the_client_chose_and_no_defaults_of_ours() -> None:
    sampling = Sampling(max_tokens=7, temperature=0.5, seed=3)
    task = Task(1, sampling, token_ids=[4, 5], stops=("x",), chosen=frozenset({"temperature"}))
    assert vllm_api.request(task, "chat", priorities=True) == (
        "/v1/completions",
        {
            **{"model": "chat", "stream": True, "return_token_ids": True, "prompt": [4, 5]},
            **{"temperature": 0.5, "max_tokens": 7, "stop": ["x"], "include_stop_str_in_output": True},
        },
    )


def test_a_chat_goes_to_the_childs_own_template_and_a_probe_before_everybody() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    path, body = vllm_api.request(Task(1, Sampling(), messages=messages, probe=True), "chat", priorities=True)
    assert (path, body["messages"], body["priority"]) == ("/v1/chat/completions", messages, -1)
    assert "max_tokens" not in body
    assert "priority" not in vllm_api.request(Task(1, Sampling(), text="x", probe=True), "chat", priorities=False)[1]


def test_log_probabilities_are_asked_for_in_the_form_of_each_path() -> None:
    completion = vllm_api.request(Task(1, Sampling(logprobs=0), text="x"), "chat", priorities=True)[1]
    assert completion["logprobs"] == 0
    chat = vllm_api.request(Task(1, Sampling(logprobs=2), messages=[]), "chat", priorities=True)[1]
    assert (chat["logprobs"], chat["top_logprobs"]) == (True, 2)


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def choice(text: str, ids: list[int], reason: str | None = None, **more: Any) -> bytes:
    return event(choices=[{"index": 0, "text": text, "token_ids": ids, "finish_reason": reason, **more}])


COMPLETION = (
    choice("a", [7], prompt_token_ids=[1, 2])
    + choice("", [8])
    + choice("é", [9])
    + choice("", [3], "stop")
    + event(choices=[], usage={"completion_tokens": 4})
    + b"data: [DONE]\n\n"
)
ROLE = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}


def heard(*pieces: bytes) -> list[Event]:
    stream = vllm_api.AnswerStream(6)
    events = [each for piece in pieces for each in stream.feed(piece)]
    assert stream.ended
    return events


def outputs(events: list[Event]) -> list[Output]:
    return [output for each in events if isinstance(each, Step) for output in each.outputs]


def test_the_likeliest_are_told_without_a_chosen_token_that_is_less_likely() -> None:
    stream = vllm_api.AnswerStream(6, alternatives=2)
    first = {"tokens": ["a"], "token_logprobs": [-3.0], "top_logprobs": [{"a": -3.0, "b": -0.5, "c": -1.0}]}
    second = {"tokens": ["b"], "token_logprobs": [-0.1], "top_logprobs": [{"b": -0.1, "d": -4.0}]}
    _, step = stream.feed(
        choice("a", [7], prompt_token_ids=[1], logprobs=first) + choice("b", [8], "stop", logprobs=second)
    )
    assert isinstance(step, Step)
    told = [
        TokenLogprobs("a", -3.0, (("b", -0.5), ("c", -1.0))),
        TokenLogprobs("b", -0.1, (("b", -0.1), ("d", -4.0))),
    ]
    assert step.outputs == [Output(6, [7, 8], "stop", "ab", told)]


def test_a_chats_log_probabilities_carry_the_tokens_bytes() -> None:
    stream = vllm_api.AnswerStream(6, alternatives=1)
    top = [{"token": "é", "logprob": -0.2, "bytes": [195, 169]}]
    content = [{"token": "\ufffd", "logprob": -0.7, "bytes": [195], "top_logprobs": top}]
    delta = {"index": 0, "delta": {"content": ""}, "token_ids": [5], "finish_reason": None}
    _, step = stream.feed(event(choices=[{**delta, "logprobs": {"content": content}}]))
    assert isinstance(step, Step)
    assert step.outputs[0].logprobs == [TokenLogprobs("\ufffd", -0.7, (("é", -0.2),), b"\xc3")]


@given(st.lists(st.integers(1, 60)))
def test_an_answer_cut_anywhere_carries_the_same(cuts: list[int]) -> None:
    pieces, rest = [], COMPLETION
    for length in cuts:
        pieces.append(rest[:length])
        rest = rest[length:]
    events = heard(*pieces, rest)
    assert events[0] == Accepted(6, [1, 2])
    assert isinstance(events[1], Step)
    assert "".join(output.text or "" for output in outputs(events)) == "aé"
    assert [id for output in outputs(events) for id in output.token_ids] == [7, 8, 9, 3]
    assert [output.reason for output in outputs(events)][-1] == "stop"


def test_tokens_of_an_incomplete_character_are_not_joined_to_the_text_before_them() -> None:
    stream = vllm_api.AnswerStream(6)
    _, step = stream.feed(choice("a", [7], prompt_token_ids=[1]) + choice("b", [8]) + choice("", [9]))
    assert isinstance(step, Step)
    assert step.outputs == [Output(6, [7, 8], None, "ab"), Output(6, [9], None, "")]


def test_a_chat_begins_with_its_first_token_not_with_its_role() -> None:
    stream = vllm_api.AnswerStream(6)
    assert stream.feed(event(choices=[ROLE], prompt_token_ids=[1, 2])) == []
    delta = {"index": 0, "delta": {"content": "Hi"}, "token_ids": [5], "finish_reason": "length"}
    assert stream.feed(event(choices=[delta])) == [
        Accepted(6, [1, 2]),
        Step(outputs=[Output(6, [5], "length", "Hi")]),
    ]


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (event(error={"message": "EngineCore died", "code": 500}), UnavailableError),
        (event(error={"message": "bad", "code": 400}), InvalidRequestError),
        (choice("", [1], "abort"), UnavailableError),
    ],
)
def test_an_error_in_a_stream_ends_it(told: bytes, kind: type[EngineError]) -> None:
    with pytest.raises(kind):
        vllm_api.AnswerStream(6).feed(told)


@pytest.mark.parametrize(
    ("status", "message", "kind", "code"),
    [
        (
            400,
            "This model's maximum context length is 10 tokens. However, …",
            InvalidRequestError,
            "context_length_exceeded",
        ),
        (
            400,
            "'max_tokens' or 'max_completion_tokens' is too large: 5",
            InvalidRequestError,
            "context_length_exceeded",
        ),
        (400, "max_tokens must be at least 1, got 0.", InvalidRequestError, "context_length_exceeded"),
        (400, "Token id 512 is out of vocabulary", InvalidRequestError, "invalid_prompt"),
        (400, "top_p must be in (0, 1]", InvalidRequestError, None),
        (500, "EngineCore encountered an issue.", UnavailableError, "failed"),
        (401, "Unauthorized", UnavailableError, "failed"),
    ],
)
def test_an_error_is_the_clients_where_another_engine_would_refuse_too(
    status: int, message: str, kind: type[EngineError], code: str | None
) -> None:
    nested = vllm_api.told_error(status, json.dumps({"error": {"message": message, "code": status}}).encode())
    flat = vllm_api.told_error(status, json.dumps({"object": "error", "message": message}).encode())
    assert [(type(each), each.code) for each in (nested, flat)] == [(kind, code)] * 2


def test_an_error_without_json_is_told_as_it_is() -> None:
    assert "Bad gateway" in str(vllm_api.told_error(502, b"Bad gateway"))


def test_the_prefix_cache_is_summed_over_the_childs_engines() -> None:
    page = "".join(
        f'vllm:prefix_cache_{name}_total{{engine="{engine}",model_name="x"}} {value}\n'
        for name, value in (("queries", "50.0"), ("hits", "20.0"))
        for engine in (0, 1)
    )
    assert vllm_api.prefix_cache(page) == (100, 40)
    assert vllm_api.prefix_cache("") is None


def test_signs_of_progress_are_the_engines_counters_and_not_the_servers() -> None:
    page = 'vllm:kv_cache_usage_perc{engine="0"} 0.25\nvllm:kv_cache_usage_perc{engine="1"} 0.5\n'
    signs, usage = vllm_api.signs(page + 'http_requests_total{path="/health"} 5.0\n')
    assert usage == 0.5
    assert vllm_api.signs(page + 'http_requests_total{path="/health"} 6.0\n') == (signs, usage)
    assert vllm_api.signs(page.replace("0.25", "0.26"))[0] != signs
    assert vllm_api.signs("") == ("", None)


def test_with_ids_each_piece_of_the_engines_text_is_what_its_ids_decode_to() -> None:
    assembler = TextAssembler(None, ["stop"], whole_pieces=True)
    given_out = [assembler.add_text(text, ids, 1) for text, ids in [("a", [1]), ("", [2]), ("é st", [3]), ("e", [4])]]
    assert [(piece.text, piece.token_ids) for piece in given_out] == [
        ("a", [1]),
        ("", []),
        ("", []),
        ("é ste", [2, 3, 4]),
    ]
    last = assembler.add_text("stop!", [5, 6], 2)
    assert (last.text, last.token_ids, last.stopped, assembler.token_count) == ("", [5, 6], True, 6)
