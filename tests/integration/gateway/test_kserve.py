"""KServe's protocol through an edge and gateways, with Triton's own clients as they are: by HTTP and by gRPC."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tests.integration.gateway.bed import Bed, wait_for
from tests.integration.gateway.conftest import MakeEngine
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.integration
KINDS: dict[str, Any] = {"BYTES": np.object_, "BOOL": np.bool_}
PROMPT = b"Once upon a time"
both = pytest.mark.parametrize("transport", [triton_http, triton_grpc], ids=["http", "grpc"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, real: MakeEngine) -> Iterator[Bed]:
    """Two regions with real engines, and an edge."""
    bed = Bed(tmp_path_factory.mktemp("kserve"), regions={"us": 2, "eu": 1}, make_engine=real, relay_flags=())
    with bed.running():
        yield bed


@pytest.fixture
def bed(shared: Bed) -> Bed:
    """With everything alive."""
    shared.repair()
    return shared


@pytest.fixture
def client(bed: Bed) -> Iterator[Callable[..., Any]]:
    """A client of a gateway, by one of the two libraries; closed after the test."""
    with ExitStack() as opened:

        def connect(transport: Any, gateway: str = "edge") -> Any:
            made = transport.InferenceServerClient(bed.gateways[gateway].url.removeprefix("http://"))
            opened.callback(made.close)
            return made

        yield connect


def inputs(transport: Any, tokens: int = 12, **values: Any) -> list[Any]:
    """A prompt, greedy sampling, and other tensors by name."""
    sampling = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True}
    values = {"text_input": PROMPT, "sampling_parameters": json.dumps(sampling).encode(), **values}
    made = []
    for name, value in values.items():
        kind = "BOOL" if isinstance(value, bool) else "BYTES"
        made.append(transport.InferInput(name, [1], kind))
        made[-1].set_data_from_numpy(np.array([value], dtype=KINDS[kind]))
    return made


def text(result: Any) -> str:
    (found,) = result.as_numpy("text_output")
    return str(found, "utf-8")


def read_stream(client: Any, tokens: int = 12, at_token: Callable[[int], None] = lambda _: None) -> tuple[str, Any]:
    """The pieces of one answer by gRPC, joined; and the error that ended it."""
    news: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: news.put((result, error)))
    client.async_stream_infer("llama", inputs(triton_grpc, tokens, stream=True))
    said, pieces = "", 0
    try:
        while True:
            result, error = news.get(timeout=60)
            if error:
                return said, error
            said += text(result)
            pieces += 1
            at_token(pieces)
            if result.get_response().parameters["triton_final_response"].bool_param:
                return said, None
    finally:
        client.stop_stream(cancel_requests=True)


@both
def test_tritons_client_works_through_the_edge_as_it_is(client: Callable[..., Any], transport: Any) -> None:
    made = client(transport)
    assert (made.is_server_live(), made.is_server_ready(), made.is_model_ready("llama")) == (True, True, True)
    assert "text_input" in str(made.get_model_metadata("llama"))
    assert "text_input" in str(made.get_model_config("llama"))
    assert text(made.infer("llama", inputs(transport))).startswith(PROMPT.decode())


def test_a_stream_by_grpc_comes_token_by_token(client: Callable[..., Any]) -> None:
    whole = text(client(triton_grpc).infer("llama", inputs(triton_grpc, exclude_input_in_output=True)))
    times: list[float] = []
    said, error = read_stream(client(triton_grpc), at_token=lambda _: times.append(time.monotonic()))
    assert (said, error) == (whole, None)
    assert len(times) > 5
    assert times[-1] - times[0] > 0.2, "the pieces came one by one"


@both
def test_a_model_that_is_not_served_is_refused_with_those_that_are(client: Callable[..., Any], transport: Any) -> None:
    with pytest.raises(InferenceServerException, match="Models: llama") as refused:
        client(transport).infer("nope", inputs(transport))
    assert refused.value.status() in ("StatusCode.NOT_FOUND", "404")


@both
def test_no_request_fails_while_engines_and_a_region_are_killed(
    bed: Bed, client: Callable[..., Any], transport: Any
) -> None:
    whole = text(client(transport).infer("llama", inputs(transport)))
    over = threading.Event()

    def ask() -> list[str]:
        made, answers = client(transport), []
        while not over.is_set():
            answers.append(text(made.infer("llama", inputs(transport))))
        return answers

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            for lost in ([bed.engines["us-0"]], [bed.engines["us-1"], *bed.gateways["us"].servers]):
                time.sleep(1.0)
                for server in lost:
                    server.kill()
            time.sleep(2.0)
        finally:
            over.set()
        answers = [answer for each in asking for answer in each.result(60)]
    print(f"{len(answers)} requests")
    assert len(answers) > 20
    assert set(answers) == {whole}


def test_a_client_that_leaves_a_grpc_stream_ends_the_generation(bed: Bed, client: Callable[..., Any]) -> None:
    engines = [address for region in bed.regions for address in bed.engine_addresses(region)]
    left = client(triton_grpc)
    news: queue.Queue[Any] = queue.Queue()
    left.start_stream(lambda result, error: news.put((result, error)))
    left.async_stream_infer("llama", inputs(triton_grpc, 3000, stream=True))
    news.get(timeout=30)
    assert running(engines) == 1
    left.stop_stream(cancel_requests=True)
    wait_for(lambda: running(engines) == 0, "it is given up")


def running(engines: list[str]) -> float:
    """Requests that the engines generate for."""
    lines = [line for each in engines for line in httpx.get(f"http://{each}:8000/metrics").text.splitlines()]
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:num_requests_running"))
