"""Prompts that begin alike meet the same engine, and a hot one does not overrun it: real Envoys, engine stand-ins."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from tests.integration.gateway.bed import Bed, wait_for
from tests.integration.gateway.processes import Server, engine

from holdfast.api.names import PREFIX_HEADER
from holdfast.api.route import Affinity
from holdfast_gateway.options import Role

pytestmark = pytest.mark.integration
PREFIXES = [f"You serve house {number:02}. " for number in range(60)]
LONG = 64
BOUND = 125


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """One region with four engines that speak HTTP/2, and an edge, all with relays."""
    affinity = Affinity(prefix_bytes=LONG, max_load_percent=BOUND)
    bed = Bed(
        tmp_path_factory.mktemp("affinity"), regions={"us": 4}, route_fields={"affinity": affinity}, relay_flags=()
    )
    with bed.running():
        yield bed


@pytest.fixture
def bed(whole: Bed) -> Bed:
    whole.repair()
    return whole


def body(prefix: str, rest: object = "", **fields: Any) -> dict[str, Any]:
    """A chat whose beginning is this prefix, after what differs from request to request."""
    chat = [{"role": "system", "content": prefix + "x" * LONG}, {"role": "user", "content": f"{rest}"}]
    return {"model": "llama", "user": f"{rest}", "messages": chat, **fields}


async def ask(session: aiohttp.ClientSession, url: str, content: Mapping[str, Any]) -> str:
    """The engine that answers; empty if none does."""
    async with session.post(f"{url}/v1/chat/completions", json=content) as answer:
        return str((await answer.json())["engine"]) if answer.status == 200 else ""


async def places(url: str, times: int = 1, **fields: Any) -> dict[str, Counter[str]]:
    """Prefix → the engines that answer it, one request after the other."""
    found: dict[str, Counter[str]] = {prefix: Counter() for prefix in PREFIXES}
    async with aiohttp.ClientSession() as session:
        for number in range(times):
            for prefix in PREFIXES:
                found[prefix][await ask(session, url, body(prefix, number, **fields))] += 1
    return found


def usual(found: Mapping[str, Counter[str]]) -> dict[str, str]:
    """Prefix → the engine that answers it most often."""
    return {prefix: engines.most_common(1)[0][0] for prefix, engines in found.items()}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_prompts_that_begin_alike_meet_the_same_engine_from_wherever_they_come(bed: Bed, stream: bool) -> None:
    found = await places(bed.gateways["us"].url, times=3, stream=stream)
    at_edge = await places(bed.gateways["edge"].url, times=2, stream=stream)
    home = usual(found)
    hits = [sum(each[home[prefix]] for each in (found[prefix], at_edge[prefix])) / 5 for prefix in PREFIXES]
    share = sum(hits) / len(hits)
    engines = dict(Counter(home.values()))
    print(f"{share:.1%} of {5 * len(PREFIXES)} requests met the engine of their prefix; prefixes by engine: {engines}")
    assert share >= 0.95
    assert len(engines) == 4


async def test_a_hot_prefix_spreads_and_no_engine_exceeds_the_bound(bed: Bed) -> None:
    at_once = 40
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        content = body(PREFIXES[0], seconds=3)
        asking = [ask(session, bed.gateways["us"].url, content) for _ in range(at_once)]
        answered = Counter(await asyncio.gather(*asking))
    print(f"{at_once} requests at once with one prefix, by engine: {dict(answered)}, bound {BOUND} % of the average")
    assert "" not in answered
    assert max(answered.values()) <= math.ceil(at_once / 4 * BOUND / 100) + 1  # at its bound, one takes one more


async def test_a_killed_engines_prefixes_move_the_others_stay_and_no_request_fails(bed: Bed) -> None:
    url = bed.gateways["us"].url
    before = usual(await places(url))
    lost = before[PREFIXES[0]]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        asking = [asyncio.create_task(ask(session, url, body(prefix, seconds=0.5))) for prefix in PREFIXES]
        await asyncio.sleep(0.25)
        bed.engines[lost].kill()
        more = [asyncio.create_task(ask(session, url, body(prefix))) for prefix in PREFIXES]
        answered = await asyncio.gather(*asking, *more)
    after = usual(await places(url))
    moved = [prefix for prefix in PREFIXES if before[prefix] == lost]
    stayed = [prefix for prefix in PREFIXES if before[prefix] != lost and after[prefix] == before[prefix]]
    to = dict(Counter(after[prefix] for prefix in moved))
    print(
        f"{answered.count('')} of {len(answered)} requests failed; {len(moved)} prefixes moved from the killed engine "
        f"to {to}, {len(stayed)} of {len(PREFIXES) - len(moved)} others stayed"
    )
    assert answered.count("") == 0
    assert lost not in after.values()
    assert len(stayed) >= 0.9 * (len(PREFIXES) - len(moved))


async def test_a_further_engine_takes_its_part_of_the_prefixes_and_moves_no_others(bed: Bed) -> None:
    gateway, whole = bed.gateways["us"], bed.snapshot("us")
    addresses = bed.engine_addresses("us")
    gateway.apply(replace(whole, engines={"default/chat": addresses[:3]}))
    wait_for(lambda: gateway.healthy_engines() == 3, "three engines")
    before = usual(await places(gateway.url))
    gateway.apply(whole)
    wait_for(lambda: gateway.healthy_engines() == 4, "four engines")
    after = usual(await places(gateway.url))
    moved = [prefix for prefix in PREFIXES if before[prefix] != after[prefix]]
    ways = dict(Counter((before[prefix], after[prefix]) for prefix in moved))
    print(f"a fourth engine: {len(moved)} of {len(PREFIXES)} prefixes moved: {ways}")
    to_it = [prefix for prefix in moved if after[prefix] == "us-3"]
    assert len(moved) - len(to_it) <= 0.1 * len(PREFIXES)
    assert 0.1 < len(to_it) / len(PREFIXES) < 0.45


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """An edge before what stands in for a region's gateway and shows what that would get."""
    folder = tmp_path_factory.mktemp("entry")
    bed = Bed(folder, regions={"us": 1}, route_fields={"affinity": Affinity(prefix_bytes=LONG)})
    region: Server = engine("us", bed.address("us", 1), 8081, Path(folder), http="auto")
    try:
        region.start()
        bed.add_gateway("edge", Role.EDGE, f"127.{bed.number}.250.1", bed.edge_snapshot())
        bed.wait_ready(["edge"])
        yield bed
    finally:
        bed.stop()
        region.kill()


def hash_of(bed: Bed, text: str, **headers: str) -> str | None:
    """What the edge tells the region of such a body."""
    answer = httpx.post(f"{bed.gateways['edge'].url}/v1/completions", content=text, headers=headers, timeout=20)
    assert answer.status_code == 200
    found: str | None = answer.json()["headers"].get(PREFIX_HEADER)
    return found


def test_the_hash_is_that_of_the_prompts_first_bytes_and_of_nothing_else(entry: Bed) -> None:
    text = "Secret words, " + "é" * LONG
    one = hash_of(entry, json.dumps({"model": "llama", "prompt": text + "a"}))
    assert one is not None
    assert "Secret" not in one
    assert len(one) < 30
    assert hash_of(entry, json.dumps({"prompt": text + "b", "user": "u", "model": "llama"})) == one
    assert hash_of(entry, '{"user":"\\"prompt\\": x","model":"llama","prompt"  :  ' + json.dumps(text) + "}") == one
    assert hash_of(entry, json.dumps({"model": "llama", "user": "prompt", "prompt": text})) == one
    assert hash_of(entry, json.dumps({"model": "llama", "prompt": "T" + text})) != one
    chat = hash_of(entry, json.dumps({"model": "llama", "messages": [{"role": "user", "content": text}]}))
    assert chat not in (None, one)
    assert hash_of(entry, json.dumps({"model": "llama", "prompt": "x"})) not in (None, one)
    assert hash_of(entry, json.dumps({"model": "llama", "prompt": text + "x" * 3_500_000})) == one


def test_a_body_without_a_prompt_near_its_beginning_has_no_hash_and_no_client_sets_one(entry: Bed) -> None:
    assert hash_of(entry, '{"model": "llama", "input": "x"}', **{PREFIX_HEADER: "1-1"}) is None
    late = {"model": "llama", "tools": "x" * 70_000, "prompt": "x"}
    assert hash_of(entry, json.dumps(late)) is None
    assert hash_of(entry, '{"model": "llama", "prompt": "x"}', **{PREFIX_HEADER: "1-1"}) != "1-1"
