"""The relay as a process, before upstreams that fail in every way: what its clients get, and what it holds."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.gateway.bed import status_of, wait_for
from tests.integration.gateway.outbound_stand_in import (
    DONE,
    Outbound,
    chunk,
    flood,
    flooded,
    lost,
    refusal,
    stream,
)
from tests.integration.gateway.processes import RELAY_PORT, Server, relay

from holdfast_gateway.render.streams import STREAMS

pytestmark = pytest.mark.integration

SERVICE = "default/chat"
DEADLINE = 60.0


class Bench:
    """A relay between scripted upstreams and the test."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.1"
        self.folder = folder
        self.outbound = Outbound()
        self.relay: Server
        self.describe()

    def describe(self, regions: tuple[str, ...] = ("us", "eu"), resumes: int = 3, progress: float = 30) -> None:
        """What the agent tells."""
        service = {"regions": list(regions), "maxResumes": resumes, "progressTimeoutSeconds": progress}
        unfinished = self.folder / "new"
        unfinished.write_text(json.dumps({"services": {SERVICE: service}}))
        unfinished.replace(self.folder / STREAMS)

    async def start(self, *flags: str, **scripts: Any) -> Bench:
        self.outbound.scripts = {
            region: script if isinstance(script, list) else [script] for region, script in scripts.items()
        }
        await self.outbound.start(self.address, 9905)
        self.relay = relay(self.folder, self.address, *flags)
        self.relay.start()
        await asyncio.to_thread(wait_for, lambda: status_of(f"{self.url}/ready/x") == 200, "the relay is up")
        return self

    @property
    def url(self) -> str:
        return f"http://{self.address}:{RELAY_PORT}"

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, http1=False, http2=True, timeout=DEADLINE)

    async def ask(self, path: str = "/v1/completions", **fields: Any) -> httpx.Response:
        body = {"model": "llama", "stream": True, "prompt": "x", "max_tokens": 9, **fields}
        async with self.client() as client:
            return await client.post(path, json=body, headers={"x-holdfast-service": SERVICE, "x-request-id": "r"})

    def metric(self, name: str) -> float:
        text = httpx.get(f"http://{self.address}:9906/metrics").text
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    async def eventually(self, name: str, value: float) -> None:
        """Until a metric has this value."""
        await asyncio.to_thread(wait_for, lambda: self.metric(name) == value, f"{name} is {value}")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.relay.kill()
    await made.outbound.stop()


def told(response: httpx.Response) -> tuple[str, str | None, str]:
    """Text, finish reason, and the last event's data."""
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    choices = [choice for each in chunks for choice in each.get("choices", [])]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    return "".join(choice["text"] for choice in choices), reasons[0] if reasons else None, events[-1]


BEGIN = chunk("a", [1], prompt=[7]) + chunk("b", [2])
REST = stream(chunk("c", [3], prompt=[7, 1, 2]), chunk("d", [4], "stop"), DONE, region="eu")
ERROR = b'data: {"error": {"message": "stalled", "code": "stalled"}}\n\n'
LOSSES = {
    "reset": (stream(BEGIN, end="reset"), "reset"),
    "ends": (stream(BEGIN), "ended"),
    "done-without-a-reason": (stream(BEGIN, DONE), "ended"),
    "half-an-event": (stream(BEGIN, b'data: {"id": "x", "choi', end="reset"), "reset"),
    "error-event": (stream(BEGIN, ERROR), "error"),
    "gives-up": (stream(BEGIN, chunk("", [], "abort"), DONE), "error"),
    "no-json": (stream(BEGIN, b"data: {oops\n\n", end="hang"), "malformed"),
    "no-utf-8": (stream(BEGIN, b"data: \xff\xfe\n\n", end="hang"), "malformed"),
    "no-chunk": (stream(BEGIN, b"data: []\n\n", end="hang"), "malformed"),
    "endless-event": (stream(BEGIN, b"data: " + b"x" * 5_000_000, end="hang"), "malformed"),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_whatever_befalls_an_engine_another_one_goes_on(bench: Bench, loss: str) -> None:
    script, reason = LOSSES[loss]
    await bench.start(us=script, eu=REST)
    response = await bench.ask()
    assert told(response) == ("abcd", "stop", "[DONE]")
    assert ": resumed from us in eu" in response.text
    assert response.headers["x-holdfast-resumable"] == "true"
    (_, first), (region, second) = bench.outbound.asked
    assert (region, second["prompt"], second["max_tokens"]) == ("eu", [7, 1, 2], 7)
    assert first["return_token_ids"] is second["return_token_ids"] is True
    assert "token_ids" not in response.text
    assert bench.metric(f'holdfast_relay_resumes_total{{reason="{reason}",region="eu"}}') == 1
    assert bench.metric("holdfast_relay_pause_seconds_count") == 1
    assert bench.metric("holdfast_relay_tokens_total") == 4
    await bench.eventually("holdfast_relay_open_streams", 0)
    assert bench.metric('holdfast_relay_streams_total{outcome="continued"}') == 1


async def test_what_another_model_began_the_services_own_engines_do_not_go_on_with(bench: Bench) -> None:
    await bench.start(us=stream(BEGIN, end="reset", x_holdfast_model="tiny"), eu=REST)
    response = await bench.ask()
    assert (response.headers["x-holdfast-model"], response.headers["x-holdfast-resumable"]) == ("tiny", "false")
    assert json.loads(told(response)[2])["error"]["code"] == "stream_not_resumable"
    assert len(bench.outbound.asked) == 1


async def test_an_engine_that_adds_no_token_for_too_long_is_given_up(bench: Bench) -> None:
    bench.describe(progress=0.5)
    await bench.start(us=stream(BEGIN, 0.1, b": alive\n\n", end="hang"), eu=REST)
    assert told(await bench.ask()) == ("abcd", "stop", "[DONE]")
    assert bench.metric('holdfast_relay_resumes_total{reason="stalled",region="eu"}') == 1


async def test_a_region_that_cannot_go_on_is_passed_over_and_its_attempt_is_no_resume(bench: Bench) -> None:
    bench.describe(("us", "ap", "sa", "eu"), resumes=1)
    await bench.start(
        "--resume-timeout", "0.5", us=stream(BEGIN, end="reset"), ap=refusal(503), sa=stream(end="hang"), eu=REST
    )
    assert told(await bench.ask()) == ("abcd", "stop", "[DONE]")
    assert [region for region, _ in bench.outbound.asked] == ["us", "ap", "sa", "eu"]
    assert [headers["x-request-id"] for headers in bench.outbound.headers] == ["r", "r-2", "r-3", "r-4"]


async def test_the_last_region_may_take_its_time(bench: Bench) -> None:
    rest = (chunk("c", [3], prompt=[7, 1, 2]), chunk("d", [4], "stop"), DONE)
    await bench.start("--resume-timeout", "0.2", us=stream(BEGIN, end="reset"), eu=stream(1.5, *rest))
    assert told(await bench.ask()) == ("abcd", "stop", "[DONE]")
    assert [region for region, _ in bench.outbound.asked] == ["us", "eu"]


async def test_the_only_region_is_asked_until_it_goes_on(bench: Bench) -> None:
    bench.describe(("us",))
    again = stream(chunk("c", [3], "stop"), DONE)
    await bench.start(us=[stream(BEGIN, end="reset"), refusal(503), lost, refusal(503), again])
    assert told(await bench.ask()) == ("abc", "stop", "[DONE]")


async def test_a_stream_whose_resumes_are_used_up_ends_with_an_error_and_no_end(bench: Bench) -> None:
    bench.describe(resumes=1)
    await bench.start(us=stream(BEGIN, end="reset"), eu=stream(chunk("c", [3]), end="reset"))
    text, reason, last = told(await bench.ask())
    assert (text, reason, json.loads(last)["error"]["code"]) == ("abc", None, "resumes_exhausted")
    await bench.eventually('holdfast_relay_streams_total{outcome="failed"}', 1)


async def test_a_stream_that_nobody_goes_on_with_ends_with_an_error(bench: Bench) -> None:
    await bench.start("--resume-search", "1", us=stream(BEGIN, end="reset"), eu=refusal(503))
    bench.outbound.scripts["us"].append(refusal(503))
    text, _, last = told(await bench.ask())
    assert (text, json.loads(last)["error"]["code"]) == ("ab", "no_region_left")
    assert len(bench.outbound.asked) < 20, "there are pauses"


NEW, OLD = {"x_holdfast_revision": "new"}, {"x_holdfast_revision": "old"}
GONE = refusal(503, **{"x-holdfast-revision-gone": "true"})


def pins(bench: Bench) -> list[tuple[str, str | None]]:
    """Region and revision of each request."""
    asked = zip(bench.outbound.asked, bench.outbound.headers, strict=True)
    return [(region, headers.get("x-holdfast-revision")) for (region, _), headers in asked]


async def test_a_stream_is_continued_by_the_revision_that_began_it_alone(bench: Bench) -> None:
    rest = stream(chunk("c", [3], "stop"), DONE, region="ap", **NEW)
    bench.describe(regions=("us", "eu", "ap"))
    await bench.start(us=stream(BEGIN, end="reset", **NEW), eu=GONE, ap=rest)
    response = await bench.ask()
    assert told(response) == ("abc", "stop", "[DONE]")
    assert response.headers["x-holdfast-revision"] == "new"
    assert pins(bench) == [("us", None), ("eu", "new"), ("ap", "new")]


async def test_an_answer_of_another_revision_is_not_joined(bench: Bench) -> None:
    other = stream(chunk("z", [9], "stop"), DONE, region="eu", **OLD)
    rest = stream(chunk("c", [3], "stop"), DONE, **NEW)
    await bench.start(us=[stream(BEGIN, end="reset", **NEW), rest], eu=other)
    assert told(await bench.ask()) == ("abc", "stop", "[DONE]")


async def test_a_stream_whose_revision_no_region_runs_any_more_ends_with_an_error_that_says_so(bench: Bench) -> None:
    await bench.start("--resume-search", "1", us=[stream(BEGIN, end="reset", **NEW), GONE], eu=GONE)
    text, _, last = told(await bench.ask())
    assert (text, json.loads(last)["error"]["code"]) == ("ab", "revision_gone")


async def test_a_stream_whose_revision_may_come_back_ends_as_one_that_nobody_goes_on_with(bench: Bench) -> None:
    await bench.start("--resume-search", "1", us=[stream(BEGIN, end="reset", **NEW), refusal(503)], eu=GONE)
    _, _, last = told(await bench.ask())
    assert json.loads(last)["error"]["code"] == "no_region_left"


async def test_nothing_is_pinned_before_the_first_token_and_any_revision_is_better_than_none(bench: Bench) -> None:
    rest = stream(chunk("x", [1], "stop", prompt=[7]), DONE, region="eu", **OLD)
    await bench.start(us=[stream(end="reset", **NEW), refusal(503)], eu=[refusal(503), rest])
    response = await bench.ask()
    assert (told(response)[0], response.headers["x-holdfast-revision"]) == ("x", "old")
    assert pins(bench)[:2] == [("us", None), ("eu", None)]
    assert pins(bench)[-1] == ("eu", "*")


async def test_clients_do_not_pin(bench: Bench) -> None:
    await bench.start(us=REST, eu=REST)
    async with bench.client() as client:
        given = {"x-holdfast-service": SERVICE, "x-holdfast-revision": "old"}
        await client.post("/v1/completions", json={"model": "llama", "stream": True, "prompt": "x"}, headers=given)
    assert pins(bench) == [("us", None)]


async def test_what_every_region_finds_fault_with_is_not_asked_again(bench: Bench) -> None:
    await bench.start(us=[stream(BEGIN, end="reset"), refusal(400)], eu=refusal(400))
    _, _, last = told(await bench.ask())
    assert json.loads(last)["error"]["code"] == "no_region_left"
    assert [region for region, _ in bench.outbound.asked] == ["us", "eu", "us"]


@pytest.mark.parametrize("fields", [{"n": 2}, {"logprobs": 1}, {"guided_json": {}}, {"prompt": ["a", "b"]}], ids=str)
async def test_a_stream_that_cannot_be_continued_truthfully_is_passed_on_untouched(bench: Bench, fields: Any) -> None:
    sent = BEGIN + b'event: odd\ndata: {"any": 1}\r\n\r\n'
    await bench.start(us=stream(sent, b'data: {"half', end="reset"), eu=REST)
    response = await bench.ask(**fields)
    assert response.headers["x-holdfast-resumable"] == "false"
    assert response.content.startswith(sent)
    error = response.content.removeprefix(sent)
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "stream_not_resumable"
    ((_, asked),) = bench.outbound.asked
    assert "return_token_ids" not in asked


async def test_an_engine_without_token_ids_is_passed_on(bench: Bench) -> None:
    plain = chunk("a", []).replace(b', "token_ids": []', b"")
    await bench.start(us=stream(plain, plain, end="reset"), eu=REST)
    response = await bench.ask()
    text, _, last = told(response)
    assert response.headers["x-holdfast-resumable"] == "false"
    assert (text, json.loads(last)["error"]["code"]) == ("aa", "stream_not_resumable")


async def test_without_resumes_nothing_is_resumed(bench: Bench) -> None:
    bench.describe(resumes=0)
    await bench.start(us=stream(BEGIN, end="reset"), eu=REST)
    response = await bench.ask()
    assert response.headers["x-holdfast-resumable"] == "false"
    assert json.loads(told(response)[2])["error"]["code"] == "stream_not_resumable"


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_a_refusal_is_passed_on_unchanged_and_marked_as_final(bench: Bench, status: int) -> None:
    await bench.start(us=refusal(status, b'{"error": 1}', **{"retry-after": "7"}), eu=REST)
    response = await bench.ask()
    assert (response.status_code, response.content) == (status, b'{"error": 1}')
    assert (response.headers["retry-after"], response.headers["x-envoy-ratelimited"]) == ("7", "true")
    assert len(bench.outbound.asked) == 1


async def test_a_stream_that_is_lost_before_its_first_event_is_begun_anew(bench: Bench) -> None:
    await bench.start(us=stream(end="reset"), eu=stream(chunk("x", [1], "stop", prompt=[7]), DONE, region="eu"))
    response = await bench.ask()
    assert told(response) == ("x", "stop", "[DONE]")
    assert response.headers["x-holdfast-region"] == "eu"
    assert "resumed" not in response.text
    (_, first), (_, second) = bench.outbound.asked
    assert first == second


async def test_a_chat_without_a_limit_goes_on_as_far_as_the_context_leaves(bench: Bench) -> None:
    def delta(text: str, ids: list[int], **first: Any) -> bytes:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, "token_ids": ids}
        chat = {"id": "c", "object": "chat.completion.chunk", "created": 5, "model": "llama", "choices": [choice]}
        return b"data: " + json.dumps({**chat, **first}).encode() + b"\n\n"

    begin = delta("a", [1], prompt_token_ids=[7] * 10) + delta("b", [2])
    await bench.start(us=stream(begin, end="reset"), eu=REST)
    response = await bench.ask("/v1/chat/completions", messages=[{"role": "user", "content": "x"}], max_tokens=None)
    region, asked = bench.outbound.asked[1]
    assert (region, asked["prompt"], asked["max_tokens"]) == ("eu", [*[7] * 10, 1, 2], 38)
    assert "messages" not in asked
    chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    assert {(each["id"], each["object"], each["created"]) for each in chunks} == {("c", "chat.completion.chunk", 5)}
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in chunks) == "abcd"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_silence_is_filled_with_comments(bench: Bench) -> None:
    await bench.start("--keep-alive", "0.2", us=stream(BEGIN, 1.5, chunk("c", [3], "stop"), DONE))
    response = await bench.ask()
    assert told(response) == ("abc", "stop", "[DONE]")
    assert response.text.count(": keep-alive\n\n") > 1


async def test_the_agents_changes_are_followed_and_a_broken_file_changes_nothing(bench: Bench) -> None:
    bench.describe(("us",), resumes=0)
    await bench.start(us=stream(BEGIN, end="reset"), eu=REST)
    assert "error" in (await bench.ask()).text
    bench.describe(("us", "eu"))
    assert told(await bench.ask())[0] == "abcd"
    (bench.folder / STREAMS).write_text('{"services": [')
    assert told(await bench.ask())[0] == "abcd"


async def test_regions_that_changed_while_a_stream_ran_are_asked_as_they_are_now(bench: Bench) -> None:
    release = asyncio.Event()

    async def lost_later(request: Any) -> Any:
        response = await stream(BEGIN)(request)
        await release.wait()
        return response

    await bench.start(us=lost_later, eu=refusal(503), ap=REST)
    asking = asyncio.create_task(bench.ask())
    await bench.eventually("holdfast_relay_tokens_total", 2)
    bench.describe(("ap",))
    release.set()
    assert told(await asking) == ("abcd", "stop", "[DONE]")
    assert [region for region, _ in bench.outbound.asked] == ["us", "ap"]


async def test_an_unknown_service_is_left_to_envoy(bench: Bench) -> None:
    await bench.start(us=REST)
    async with bench.client() as client:
        response = await client.post(
            "/v1/completions", json={"stream": True}, headers={"x-holdfast-service": "no/such"}
        )
    assert response.status_code == 503
    assert "x-envoy-ratelimited" not in response.headers


async def test_a_body_that_is_too_large_is_refused(bench: Bench) -> None:
    await bench.start("--max-body", "1000", us=REST)
    response = await bench.ask(prompt="x" * 2000)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
    assert bench.outbound.asked == []


@pytest.fixture
def raw(bench: Bench) -> Iterator[Callable[[], socket.socket]]:
    """Clients over HTTP/1.1 that read when they like."""
    opened: list[socket.socket] = []

    def ask() -> socket.socket:
        body = json.dumps({"model": "llama", "stream": True, "prompt": "x", "max_tokens": 9}).encode()
        opened.append(socket.create_connection((bench.address, RELAY_PORT), DEADLINE))
        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-holdfast-service: {SERVICE}\r\n"
        opened[-1].sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        return opened[-1]

    yield ask
    for each in opened:
        each.close()


async def settled(value: Callable[[], int]) -> int:
    """The value once it has not changed for a while."""
    last, same = value(), 0
    async with asyncio.timeout(DEADLINE):
        while same < 15:
            await asyncio.sleep(0.1)
            same = same + 1 if value() == last else 0
            last = value()
    return last


async def test_a_client_that_does_not_read_stops_its_engine_and_not_others(
    bench: Bench, raw: Callable[[], socket.socket]
) -> None:
    flooded["bytes"] = 0
    await bench.start(us=flood)
    client = raw()
    taken = await settled(lambda: flooded["bytes"])
    assert 0 < taken < 16_000_000, "sockets' buffers on both sides of the relay, and what it holds itself"
    bench.outbound.scripts["us"] = [REST]
    assert told(await bench.ask())[0] == "cd"
    assert flooded["bytes"] == taken
    print(f"{taken} bytes were taken for a client that read none")
    assert memory(bench.relay.pid) < 300_000_000
    client.close()


def memory(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def test_a_client_that_leaves_takes_its_upstream_with_it(bench: Bench, raw: Callable[[], socket.socket]) -> None:
    ended = asyncio.Event()

    async def watched(request: Any) -> Any:
        try:
            return await stream(BEGIN, end="hang")(request)
        finally:
            ended.set()

    await bench.start(us=watched)
    client = raw()
    await asyncio.to_thread(client.recv, 100)
    client.close()
    async with asyncio.timeout(DEADLINE):
        await ended.wait()
    await bench.eventually('holdfast_relay_streams_total{outcome="client_left"}', 1)


async def test_two_relays_do_not_share_a_port(bench: Bench) -> None:
    await bench.start(us=REST)
    second = relay(bench.folder, bench.address, "--relay-status-port", "0")
    second.start()
    assert await asyncio.to_thread(second.wait, DEADLINE) == 1
    assert "Address already in use" in second.log()


async def test_told_to_stop_it_finishes_its_streams_and_takes_no_more(bench: Bench) -> None:
    release = asyncio.Event()

    async def slow(request: Any) -> Any:
        response = await stream(BEGIN)(request)
        await release.wait()
        await response.write(chunk("c", [3], "stop") + DONE)
        return response

    await bench.start(us=slow)
    asking = asyncio.create_task(bench.ask())
    await bench.eventually("holdfast_relay_tokens_total", 2)
    bench.relay.terminate()
    await asyncio.to_thread(wait_for, lambda: status_of(f"{bench.url}/ready/x") == 503, "it says so")
    assert bench.relay.running()
    release.set()
    assert told(await asking) == ("abc", "stop", "[DONE]")
    assert await asyncio.to_thread(bench.relay.wait, DEADLINE) == 0


async def test_told_twice_it_stops_at_once(bench: Bench) -> None:
    await bench.start(us=stream(BEGIN, end="hang"))
    asking = asyncio.create_task(bench.ask())
    await bench.eventually("holdfast_relay_tokens_total", 2)
    bench.relay.terminate()
    await asyncio.to_thread(wait_for, lambda: status_of(f"{bench.url}/ready/x") == 503, "it drains")
    bench.relay.terminate()
    assert await asyncio.to_thread(bench.relay.wait, DEADLINE) == 143
    with pytest.raises(httpx.HTTPError):
        await asking
