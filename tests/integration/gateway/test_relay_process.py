"""The relay as a process: quiet and slow clients, those that leave, two of them, and its end."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.gateway.bed import status_of, wait_for
from tests.integration.gateway.outbound_stand_in import DONE, chunk, flood, flooded, stream
from tests.integration.gateway.processes import RELAY_PORT, relay
from tests.integration.gateway.relay_bench import BEGIN, DEADLINE, REST, SERVICE, Bench, told

pytestmark = pytest.mark.integration


async def test_silence_is_filled_with_comments(bench: Bench) -> None:
    await bench.start("--keep-alive", "0.2", us=stream(BEGIN, 1.5, chunk("c", [3], "stop"), DONE))
    response = await bench.ask()
    assert told(response) == ("abc", "stop", "[DONE]")
    assert response.text.count(": keep-alive\n\n") > 1


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
