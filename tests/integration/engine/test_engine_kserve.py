"""The v2 protocol of a real engine, with Triton's own clients over HTTP and gRPC."""

from __future__ import annotations

import json
import queue
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import h2.config
import h2.connection
import h2.events
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tests.integration.engine.conftest import LONG, wait_until
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.integration
Engine = Any  # tests/integration/engine/conftest.py: EngineProcess
Launch = Callable[..., Any]
NUMPY: dict[str, Any] = {"BYTES": np.object_, "BOOL": np.bool_, "INT32": np.int32, "INT64": np.int64}
ALONE = {"exclude_input_in_output": True}
"""The answer's text alone, as OpenAI's routes give it."""
both = pytest.mark.parametrize("transport", [triton_http, triton_grpc], ids=["http", "grpc"])


@pytest.fixture
def client() -> Iterator[Callable[..., Any]]:
    """A client of an engine, by one of the two libraries; closed after the test."""
    with ExitStack() as opened:

        def connect(engine: Engine, transport: Any) -> Any:
            port = engine.port if transport is triton_http else engine.grpc_port
            made = transport.InferenceServerClient(f"127.0.0.1:{port}")
            opened.callback(made.close)
            return made

        yield connect


def inputs(transport: Any, sampling: dict[str, Any] | None = None, **values: Any) -> list[Any]:
    """Input tensors by name; a prompt and greedy sampling unless others are given."""
    if "input_ids" not in values:
        values = {"text_input": b"Once upon", **values}
    values["sampling_parameters"] = json.dumps({"temperature": 0, **(sampling or {})}).encode()
    made = []
    for name, value in values.items():
        kind = "BYTES" if isinstance(value, bytes) else "BOOL" if isinstance(value, bool) else "INT64"
        elements = value if isinstance(value, list) else [value]
        made.append(transport.InferInput(name, [len(elements)], kind))
        made[-1].set_data_from_numpy(np.array(elements, dtype=NUMPY[kind]))
    return made


def outputs(transport: Any, *names: str) -> list[Any]:
    return [transport.InferRequestedOutput(name) for name in names]


def text(result: Any) -> str:
    (found,) = result.as_numpy("text_output")
    return str(found, "utf-8")


class Stream:
    """One gRPC stream, on which several requests may run."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.news: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(lambda result, error: self.news.put((result, error)))

    def ask(self, id: str, sampling: dict[str, Any], model: str = "tiny", **values: Any) -> None:
        asked = inputs(triton_grpc, sampling, stream=True, **values)
        self.client.async_stream_infer(model, asked, request_id=id)

    def next(self) -> tuple[Any, Any]:
        return self.news.get(timeout=60)

    def ends(self, count: int) -> tuple[dict[str, str], list[Any]]:
        """The texts by request of all that end by `count` last parts or errors; and the errors."""
        texts, errors, ended = dict[str, str](), [], 0
        while ended < count:
            result, error = self.next()
            if error is not None:
                errors.append(error)
                ended += 1
                continue
            message = result.get_response()
            texts[message.id] = texts.get(message.id, "") + text(result)
            ended += message.parameters["triton_final_response"].bool_param
        return texts, errors


@pytest.fixture
def stream(client: Callable[..., Any]) -> Iterator[Callable[[Engine], Stream]]:
    opened: list[Stream] = []

    def start(engine: Engine) -> Stream:
        opened.append(Stream(client(engine, triton_grpc)))
        return opened[-1]

    yield start
    for each in opened:
        each.client.stop_stream(cancel_requests=True)


@both
def test_server_and_model_are_live_ready_and_described(engine: Engine, client: Any, transport: Any) -> None:
    asking = client(engine, transport)
    assert (asking.is_server_live(), asking.is_server_ready(), asking.is_model_ready("tiny", "1")) == (True,) * 3
    as_json = {} if transport is triton_http else {"as_json": True}
    server = asking.get_server_metadata(**as_json)
    assert server["name"] == "holdfast"
    assert "binary_tensor_data" in server["extensions"]
    model = asking.get_model_metadata("tiny", **as_json)
    assert (model["name"], model["versions"]) == ("tiny", ["1"])
    assert [each["datatype"] for each in model["inputs"] if each["name"] == "text_input"] == ["BYTES"]
    config = asking.get_model_config("tiny", **as_json)
    config = config.get("config", config)
    assert config["model_transaction_policy"] == {"decoupled": True}
    index = asking.get_model_repository_index(**as_json)
    (found,) = index["models"] if isinstance(index, dict) else index
    assert (found["name"], found["state"]) == ("tiny", "READY")


@both
def test_an_answer_is_the_completions_and_has_what_was_asked_for(engine: Engine, client: Any, transport: Any) -> None:
    same = engine.ask(max_tokens=20, return_token_ids=True).json()
    names = ("text_output", "finish_reason", "output_ids", "num_input_tokens", "num_output_tokens")
    asked = inputs(transport, {"max_tokens": 20}, **ALONE)
    result = client(engine, transport).infer("tiny", asked, outputs=outputs(transport, *names), request_id="r1")
    choice = same["choices"][0]
    assert text(result) == choice["text"]
    assert result.as_numpy("finish_reason").tolist() == [b"length"]
    assert result.as_numpy("output_ids").tolist() == choice["token_ids"]
    assert result.as_numpy("num_input_tokens").tolist() == [same["usage"]["prompt_tokens"]]
    assert result.as_numpy("num_output_tokens").tolist() == [20]
    answer = result.get_response()
    assert (answer["id"] if isinstance(answer, dict) else answer.id) == "r1"


@both
def test_the_prompt_comes_first_unless_it_is_excluded(engine: Engine, client: Any, transport: Any) -> None:
    alone = engine.ask(max_tokens=5).json()["choices"][0]["text"]
    result = client(engine, transport).infer("tiny", inputs(transport, {"max_tokens": 5}))
    assert text(result) == "Once upon" + alone
    assert result.as_numpy("finish_reason") is None


@both
def test_a_prompt_of_token_ids_continues_an_answer_exactly(engine: Engine, client: Any, transport: Any) -> None:
    whole = engine.ask(max_tokens=32, return_token_ids=True).json()["choices"][0]
    ids = whole["prompt_token_ids"] + whole["token_ids"][:10]
    asked = inputs(transport, {"max_tokens": 22}, input_ids=ids)
    rest = client(engine, transport).infer("tiny", asked, outputs=outputs(transport, "output_ids"))
    assert rest.as_numpy("output_ids").tolist() == whole["token_ids"][10:]
    assert rest.as_numpy("text_output") is None


@both
def test_a_stop_string_ends_the_answer_before_itself(engine: Engine, client: Any, transport: Any) -> None:
    full = engine.ask(max_tokens=64).json()["choices"][0]["text"]
    stop = full[20:25]
    asked = inputs(transport, {"max_tokens": 64, "stop": [stop]}, return_finish_reason=True, **ALONE)
    result = client(engine, transport).infer("tiny", asked)
    assert text(result) == full[: full.index(stop)]
    assert result.as_numpy("finish_reason").tolist() == [b"stop"]


@both
@pytest.mark.parametrize(
    ("name", "values", "status", "said"),
    [
        ("other", {}, ("404", "NOT_FOUND"), "`other` does not exist"),
        ("tiny", {"stream": True}, ("400", "INVALID_ARGUMENT"), "leave out `stream`"),
        ("tiny", {"sampling": {"top_k": 3}}, ("400", "INVALID_ARGUMENT"), "`top_k` is not supported"),
        ("tiny", {"input_ids": [512]}, ("400", "INVALID_ARGUMENT"), "512"),
        ("tiny", {"input_ids": [5] * 8192}, ("400", "INVALID_ARGUMENT"), "8192"),
    ],
)
def test_an_impossible_request_is_refused_and_the_engine_lives_on(
    engine: Engine,
    client: Any,
    transport: Any,
    name: str,
    values: dict[str, Any],
    status: tuple[str, str],
    said: str,
) -> None:
    asking = client(engine, transport)
    with pytest.raises(InferenceServerException, match=said) as refused:
        asking.infer(name, inputs(transport, **values))
    assert refused.value.status() == (status[0] if transport is triton_http else f"StatusCode.{status[1]}")
    assert text(asking.infer("tiny", inputs(transport, {"max_tokens": 1})))


@both
def test_a_version_that_is_not_there_is_refused(engine: Engine, client: Any, transport: Any) -> None:
    with pytest.raises(InferenceServerException, match="no version 2, only 1"):
        client(engine, transport).infer("tiny", inputs(transport), model_version="2")


def test_plain_json_needs_no_client_library(engine: Engine) -> None:
    tensor = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["Once upon"]}
    body = {"inputs": [tensor], "parameters": {"max_tokens": 8, "temperature": 0}}
    answer = engine.client.post("/v2/models/tiny/versions/1/infer", json=body)
    assert answer.headers["content-type"] == "application/json"
    same = engine.ask(max_tokens=8).json()["choices"][0]["text"]
    output = {"name": "text_output", "datatype": "BYTES", "shape": [1], "data": ["Once upon" + same]}
    assert answer.json() == {"model_name": "tiny", "model_version": "1", "outputs": [output]}


def test_generate_and_its_stream_give_the_same_text(engine: Engine) -> None:
    asked = {"text_input": "Once upon", "parameters": {"max_tokens": 30, "temperature": 0, **ALONE}}
    whole = engine.client.post("/v2/models/tiny/generate", json=asked)
    same = engine.ask(max_tokens=30).json()["choices"][0]["text"]
    assert whole.json() == {"model_name": "tiny", "model_version": "1", "text_output": same}
    streamed = engine.client.post(
        "/v2/models/tiny/generate_stream", json={**asked, "stream": True, "return_finish_reason": True}
    )
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *events, end = streamed.text.split("\n\n")
    parts = [json.loads(event.removeprefix("data: ")) for event in events]
    assert end == ""
    assert len(parts) > 5
    assert "".join(part["text_output"] for part in parts) == same
    assert {part["finish_reason"] for part in parts[:-1]} == {"None"}
    assert parts[-1]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/v2/models/tiny/generate", b"{", 400, "not valid JSON"),
        ("POST", "/v2/models/tiny/generate_stream", b'{"stream": true}', 400, "either as `text_input`"),
        ("POST", "/v2/models/tiny/infer", b" " * (8 * 1024 * 1024 + 1), 413, "larger than"),
        ("POST", "/v2/models/other/generate", b"{}", 404, "`other` does not exist"),
        ("GET", "/v2/nothing", b"", 404, "Unknown path"),
        ("DELETE", "/v2/health/live", b"", 405, "not allowed"),
    ],
)
def test_errors_are_tritons(engine: Engine, method: str, path: str, body: bytes, status: int, said: str) -> None:
    refused = engine.client.request(method, path, content=body)
    assert refused.status_code == status
    assert list(refused.json()) == ["error"]
    assert said in refused.json()["error"]


def test_requests_of_one_stream_run_side_by_side_and_fail_alone(engine: Engine, stream: Any) -> None:
    streaming = stream(engine)
    for n in range(8):
        streaming.ask(f"r{n}", {"max_tokens": 30}, text_input=f"Story {n}".encode())
    streaming.ask("bad", {"max_tokens": 0})
    streaming.ask("unknown", {}, model="other")
    texts, errors = streaming.ends(10)
    same = {f"r{n}": engine.ask(prompt=f"Story {n}", max_tokens=30).json()["choices"][0]["text"] for n in range(8)}
    assert texts == same
    assert sorted(str(error)[:20] for error in errors) == ["The model `other` do", "max_tokens: Input sh"]


def test_a_later_request_of_a_stream_overtakes_one_that_runs(paced_engine: Engine, stream: Any) -> None:
    streaming = stream(paced_engine)
    streaming.ask("long", {"max_tokens": LONG, "ignore_eos": True})
    paced_engine.wait_load(running=1)
    streaming.ask("short", {"max_tokens": 2})
    ended = ""
    while not ended:
        result, _ = streaming.next()
        message = result.get_response()
        ended = message.id if message.parameters["triton_final_response"].bool_param else ""
    assert ended == "short"
    assert paced_engine.running() == 1


def test_a_stream_that_is_left_stops_its_generations(paced_engine: Engine, stream: Any) -> None:
    streaming = stream(paced_engine)
    streaming.ask("a", {"max_tokens": LONG, "ignore_eos": True})
    streaming.ask("b", {"max_tokens": LONG, "ignore_eos": True})
    paced_engine.wait_load(running=2)
    aborted = paced_engine.metric("vllm:request_success_total", finished_reason="abort")
    streaming.client.stop_stream(cancel_requests=True)
    paced_engine.wait_load(running=0)
    assert paced_engine.metric("vllm:request_success_total", finished_reason="abort") == aborted + 2


def test_an_answer_that_is_cancelled_stops_its_generation(paced_engine: Engine, client: Any) -> None:
    asked = inputs(triton_grpc, {"max_tokens": LONG, "ignore_eos": True})
    call = client(paced_engine, triton_grpc).async_infer("tiny", asked, lambda *_, **__: None)
    paced_engine.wait_load(running=1)
    call.cancel()
    paced_engine.wait_load(running=0)


def test_a_client_that_leaves_generate_stream_stops_its_generation(paced_engine: Engine) -> None:
    asked = {"text_input": "a", "stream": True, "max_tokens": LONG, "ignore_eos": True}
    with paced_engine.connect() as leaving, leaving.stream("POST", "/v2/models/tiny/generate_stream", json=asked) as r:
        content = r.iter_raw()  # forgotten, it would close the connection
        assert next(content).startswith(b"data: ")
        paced_engine.wait_load(running=1)
    paced_engine.wait_load(running=0)


def test_a_drain_refuses_new_requests_by_grpc_and_lets_streams_finish(launch: Launch, client: Any, stream: Any) -> None:
    engine = launch("--step-interval", "0.03").wait_ready()
    asking, streaming = client(engine, triton_grpc), stream(engine)
    streaming.ask("a", {"max_tokens": 60, "ignore_eos": True})
    streaming.ask("held", {"max_tokens": LONG, "ignore_eos": True})
    engine.wait_load(running=2)
    engine.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not asking.is_server_ready(), "the drain to begin")
    assert asking.is_server_live()
    with pytest.raises(InferenceServerException, match="draining") as refused:
        asking.infer("tiny", inputs(triton_grpc))
    assert refused.value.status() == "StatusCode.UNAVAILABLE"
    assert engine.client.get("/v2/health/ready").status_code == 400
    ended = False
    while not ended:
        result, error = streaming.next()
        assert error is None
        ended = result.get_response().parameters["triton_final_response"].bool_param
    assert result.get_response().id == "a"
    streaming.client.stop_stream(cancel_requests=True)
    assert engine.process.wait(60) == 0


def test_port_zero_means_no_grpc(launch: Launch, client: Any) -> None:
    engine = launch("--grpc-port", "0").wait_ready()
    with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
        client(engine, triton_grpc).is_server_live()


def test_a_grpc_port_that_is_taken_ends_the_engine(engine: Engine, launch: Launch) -> None:
    other = launch("--grpc-port", str(engine.grpc_port))
    assert other.process.wait(60) == 1


def test_frequent_pings_without_calls_are_answered(engine: Engine) -> None:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    answered: list[bytes] = []
    with socket.create_connection(("127.0.0.1", engine.grpc_port), 60) as opened:
        for n in range(20):
            connection.ping(n.to_bytes(8, "big"))
            opened.sendall(connection.data_to_send())
            while len(answered) <= n:
                received = connection.receive_data(opened.recv(65536))
                assert not any(isinstance(event, h2.events.ConnectionTerminated) for event in received)
                answered += [event.ping_data for event in received if isinstance(event, h2.events.PingAckReceived)]
    assert answered == [n.to_bytes(8, "big") for n in range(20)]
