"""A client that reads tokens while its region dies sees a pause: real Envoys, real relays, real engines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from tests.integration.gateway.bed import Bed, status_of, wait_for
from tests.integration.gateway.conftest import MakeEngine
from tests.integration.gateway.processes import Server
from tests.integration.gateway.streaming import CHAT, COMPLETION, DEADLINE, TOKENS, Streamed, ask, metric

from holdfast.api.route import TrafficMode

pytestmark = pytest.mark.integration

KILL = pytest.param(Server.kill, id="killed")
FREEZE = pytest.param(Server.freeze, id="frozen")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, real: MakeEngine) -> Iterator[Bed]:
    """Two regions with an engine each, and an edge, all with relays."""
    bed = Bed(
        tmp_path_factory.mktemp("streams"), regions={"us": 1, "eu": 1}, make_engine=real,
        mode=TrafficMode.ACTIVE_PASSIVE, relay_flags=("--relay-status-port", "9906"),
    )  # fmt: skip
    with bed.running():
        yield bed


@pytest.fixture
def bed(shared: Bed) -> Bed:
    for server in shared.engines.values():
        server.thaw()
        if not server.running():
            server.start()
    for region in shared.regions:
        for address in shared.engine_addresses(region):
            # Its gateway may not have noticed yet that an earlier test had killed it.
            wait_for(lambda address=address: status_of(f"http://{address}:8000/health") == 200, f"{address} is up")
    shared.repair()
    return shared


@pytest.mark.parametrize("content", [COMPLETION, CHAT], ids=["completion", "chat"])
@pytest.mark.parametrize("fault", [KILL, FREEZE])
def test_a_stream_goes_on_when_its_engine_is_lost(bed: Bed, fault: Callable[[Server], None], content: Any) -> None:
    gateway = bed.gateways["us"]
    undisturbed = ask(gateway.url, content=content, return_token_ids=True)
    before, paused = (metric(bed, "us", f"holdfast_relay_{name}") for name in ("resumes_total", "pause_seconds_sum"))

    got = ask(gateway.url, lambda: fault(bed.engines["us-0"]), content=content, return_token_ids=True)

    assert got.seen() == undisturbed.seen()
    assert got.seen()["usage"][0]["completion_tokens"] == TOKENS == len(got.seen()["ids"])
    assert (got.headers["x-holdfast-region"], got.headers["x-holdfast-resumable"]) == ("us", "true")
    assert ": resumed from us in eu" in got.raw
    assert metric(bed, "us", "holdfast_relay_resumes_total") == before + 1
    print(f"pause {metric(bed, 'us', 'holdfast_relay_pause_seconds_sum') - paused:.2f} s")


@pytest.mark.parametrize("fault", [KILL, FREEZE])
def test_a_stream_through_an_edge_goes_on_when_the_whole_region_is_lost(
    bed: Bed, fault: Callable[[Server], None]
) -> None:
    edge = bed.gateways["edge"]
    undisturbed = ask(edge.url, content=CHAT)

    def lose_region() -> None:
        for server in (bed.engines["us-0"], *bed.gateways["us"].servers):
            fault(server)

    got = ask(edge.url, lose_region, content=CHAT)

    assert got.seen() == undisturbed.seen()
    assert ": resumed from us in eu" in got.raw


def test_a_stream_goes_on_as_often_as_it_must(bed: Bed) -> None:
    gateway = bed.gateways["us"]
    undisturbed = ask(gateway.url, max_tokens=90)

    def swap() -> None:
        bed.engines["us-0"].kill()
        bed.engines["us-0"].start()
        wait_for(lambda: gateway.healthy_engines() == 1, "the engine is back")

    def lose_both_in_turn() -> None:
        swap()
        bed.engines["eu-0"].kill()

    got = ask(gateway.url, lose_both_in_turn, max_tokens=90)
    assert got.seen() == undisturbed.seen()
    assert got.raw.count(": resumed from") in (1, 2)


@pytest.mark.parametrize("after", [11, 12, 13, 14])
def test_a_stop_string_near_the_seam_ends_the_answer_where_it_would_have(bed: Bed, after: int) -> None:
    gateway = bed.gateways["us"]
    whole = ask(gateway.url)
    texts = [choice["text"] for chunk in whole.chunks for choice in chunk["choices"]]
    before, stop = "".join(texts[:13]), "".join(texts[13:17])[1:]
    at = whole.text.find(stop)
    undisturbed = ask(gateway.url, stop=[stop, "never said"])
    assert (undisturbed.text, undisturbed.seen()["reasons"]) == (whole.text[:at], ["stop"]), before

    got = ask(gateway.url, bed.engines["us-0"].kill, after=after, stop=[stop, "never said"])

    assert got.seen() == undisturbed.seen()


def test_many_streams_at_once_all_go_on(bed: Bed) -> None:
    url = bed.gateways["us"].url
    prompts = [{"prompt": f"{number} times upon"} for number in range(12)]
    undisturbed = [ask(url, content=prompt).seen() for prompt in prompts]
    running = threading.Barrier(len(prompts) + 1, timeout=DEADLINE)

    def read(prompt: Any) -> Streamed:
        return ask(url, lambda: running.wait() and None, content=prompt, max_tokens=TOKENS)

    with ThreadPoolExecutor(len(prompts)) as pool:
        reading = [pool.submit(read, prompt) for prompt in prompts]
        running.wait()
        bed.engines["us-0"].kill()
        got = [each.result() for each in reading]

    assert [each.seen() for each in got] == undisturbed
    assert any(": resumed from us in eu" in each.raw for each in got)


def test_the_real_openai_client_sees_one_answer(bed: Bed) -> None:
    gateway = bed.gateways["us"]
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", timeout=DEADLINE, max_retries=0)

    def read(fault: Callable[[], None] | None) -> tuple[str, str | None, Any, set[str]]:
        text, reason, usage, names = "", None, None, set()
        answer = client.chat.completions.create(
            model="llama", messages=[{"role": "user", "content": "Tell me"}], temperature=0, max_tokens=40,
            stream=True, stream_options={"include_usage": True}, extra_body={"ignore_eos": True},
        )  # fmt: skip
        for number, chunk in enumerate(answer):
            names.add(chunk.id)
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
            if number == 10 and fault is not None:
                fault()
        return text, reason, usage.model_dump() if usage else None, names

    undisturbed = read(None)
    got = read(bed.engines["us-0"].kill)
    assert got[:3] == undisturbed[:3]
    assert got[1] == "length"
    assert len(got[3]) == 1


def test_the_real_openai_client_works_through_the_edge_as_it_is(bed: Bed) -> None:
    client = openai.OpenAI(base_url=f"{bed.gateways['edge'].url}/v1", api_key="none", timeout=DEADLINE, max_retries=0)
    asked: Any = {"model": "llama", "temperature": 0, "max_tokens": 12, "extra_body": {"ignore_eos": True}}
    messages: Any = [{"role": "user", "content": "Tell me"}]
    assert [model.id for model in client.models.list()] == ["llama"]

    chat = client.chat.completions.create(messages=messages, **asked)
    chunks = list(client.chat.completions.create(messages=messages, stream=True, **asked))
    assert chat.usage is not None
    assert chat.usage.completion_tokens == 12
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == chat.choices[0].message.content

    whole = client.completions.create(prompt="Once upon", **asked)
    parts = list(client.completions.create(prompt="Once upon", stream=True, **asked))
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text
    with pytest.raises(openai.NotFoundError, match="llama"):
        client.completions.create(prompt="x", **{**asked, "model": "nope"})


def test_a_stream_that_cannot_be_continued_says_so(bed: Bed) -> None:
    got = ask(bed.gateways["us"].url, bed.engines["us-0"].kill, truncate_prompt_tokens=50)
    assert got.headers["x-holdfast-resumable"] == "false"
    assert got.chunks[-1]["error"]["code"] == "stream_not_resumable"
    assert not got.ended


@pytest.mark.parametrize("fault", [KILL, FREEZE])
def test_without_their_relay_streams_and_other_requests_are_answered(bed: Bed, fault: Callable[[Server], None]) -> None:
    gateway = bed.gateways["us"]
    assert gateway.relay is not None
    fault(gateway.relay)
    got = ask(gateway.url)
    assert got.ended
    assert "x-holdfast-resumable" not in got.headers
    body = {"model": "llama", **COMPLETION, "max_tokens": 4, "temperature": 0}
    assert httpx.post(f"{gateway.url}/v1/completions", json=body, timeout=DEADLINE).status_code == 200


def test_requests_that_are_not_streamed_do_not_pass_the_relay(bed: Bed) -> None:
    before = metric(bed, "us", "holdfast_relay_streams_total")
    body = {"model": "llama", **COMPLETION, "max_tokens": 4, "temperature": 0}
    for stream in ({}, {"stream": False}, {"stream": None}):
        answer = httpx.post(f"{bed.gateways['us'].url}/v1/completions", json={**body, **stream}, timeout=DEADLINE)
        assert (answer.status_code, answer.json()["object"]) == (200, "text_completion")
    assert metric(bed, "us", "holdfast_relay_streams_total") == before


def test_an_engines_refusal_reaches_the_client_as_it_is_and_no_region_is_asked_twice(bed: Bed) -> None:
    retries = r"^cluster\.stream/default/chat\.upstream_rq_retry$"
    before = bed.gateways["us"].stat(retries)
    body = {"model": "llama", "prompt": "x", "stream": True, "max_tokens": 10_000_000}
    answer = httpx.post(f"{bed.gateways['us'].url}/v1/completions", json=body, timeout=DEADLINE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    for engine in bed.engines.values():
        engine.kill()
    answer = httpx.post(f"{bed.gateways['us'].url}/v1/completions", json={**body, "max_tokens": 3}, timeout=DEADLINE)
    assert answer.status_code == 503
    assert "x-envoy-ratelimited" not in answer.headers
    assert bed.gateways["us"].stat(retries) == before, "the relay's refusal is final"


def test_a_client_that_leaves_ends_the_generation(bed: Bed) -> None:
    gateway = bed.gateways["us"]
    engines = [f"http://{bed.engine_addresses(region)[0]}:8000/metrics" for region in bed.regions]

    def running() -> float:
        lines = [line for engine in engines for line in httpx.get(engine).text.splitlines()]
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:num_requests_running"))

    body = {"model": "llama", **COMPLETION, "stream": True, "max_tokens": 3000, "ignore_eos": True}
    with httpx.stream("POST", f"{gateway.url}/v1/completions", json=body, timeout=DEADLINE) as response:
        assert response.status_code == 200, response.read()
        reading = response.iter_raw()  # kept: httpx leaves when it is dropped
        next(reading)
        wait_for(lambda: running() == 1, "it runs")
    wait_for(lambda: running() == 0, "it is given up")


def test_a_gateway_that_drains_still_continues_its_streams(bed: Bed) -> None:
    gateway = bed.gateways["us"]
    undisturbed = ask(gateway.url, max_tokens=100)

    def drain_and_lose() -> None:
        for server in gateway.servers:
            server.terminate()
        wait_for(lambda: status_of(f"{gateway.url}/ready") == 0, "the client port is closed")
        bed.engines["us-0"].kill()

    assert ask(gateway.url, drain_and_lose, max_tokens=100).seen() == undisturbed.seen()
    for server in gateway.servers:
        assert server.wait(DEADLINE) == 0
