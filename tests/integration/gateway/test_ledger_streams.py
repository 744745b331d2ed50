"""The records of streams: real Envoys, relays, engines and ledgers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from tests.integration.gateway.bed import Bed, Gateway, status_of, wait_for
from tests.integration.gateway.conftest import MakeEngine
from tests.integration.gateway.records import Kept, metric, ships, stop_all
from tests.integration.gateway.streaming import CHAT, COMPLETION, TOKENS, ask

from holdfast.api.route import TrafficMode

pytestmark = pytest.mark.integration


@dataclass
class World:
    bed: Bed
    kept: Kept

    @property
    def gateway(self) -> Gateway:
        return self.bed.gateways["us"]

    def newest(self, ids: set[str]) -> list[dict[str, object]]:
        """The records that came since those ids were there, once there is one."""
        wait_for(lambda: self.ids() - ids != set(), "a record")
        return [record for record in self.kept.all() if record["id"] not in ids]

    def ids(self) -> set[str]:
        return {record["id"] for record in self.kept.all()}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, real: MakeEngine) -> Iterator[World]:
    """Two regions with an engine each, with relays and a ledger."""
    folder = tmp_path_factory.mktemp("ledger")
    bed = Bed(
        folder, regions={"us": 1, "eu": 1}, make_engine=real, mode=TrafficMode.ACTIVE_PASSIVE,
        relay_flags=("--relay-status-port", "9906"), ledger=True,
    )  # fmt: skip
    kept = Kept(folder / "kept")
    servers = []
    try:
        bed.start(edge=False)
        servers.append(ships(bed.gateways["us"], kept.sink, "--ledger-grace", "2"))
        wait_for(lambda: metric(bed.gateways["us"], "holdfast_ledger_lag") == 0, "the ledger is up")
        yield World(bed, kept)
    finally:
        stop_all(bed, servers)


@pytest.fixture
def world(shared: World) -> World:
    for server in shared.bed.engines.values():
        if not server.running():
            server.start()
    for region in shared.bed.regions:
        for address in shared.bed.engine_addresses(region):
            wait_for(lambda address=address: status_of(f"http://{address}:8000/health") == 200, f"{address} is up")
    shared.bed.repair()
    return shared


@pytest.mark.parametrize("content", [COMPLETION, CHAT], ids=["completion", "chat"])
def test_a_stream_that_was_continued_is_one_record_with_all_its_tokens(
    world: World, content: dict[str, object]
) -> None:
    before = world.ids()
    got = ask(world.gateway.url, world.bed.engines["us-0"].kill, content=content)
    (record,) = world.newest(before)
    usage = got.seen()["usage"][0]
    assert (record["tokens_in"], record["tokens_out"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert (record["outcome"], record["resumed"], record["attempts"], record["status"]) == ("completed", 1, 2, 200)
    assert (record["region"], record["regions"], record["stream"]) == ("us", ["us", "eu"], True)
    assert record["service"] == "default/chat"
    assert 0 < record["ttft_ms"] < record["latency_ms"]  # type: ignore[operator]


def test_a_stream_whose_client_asked_for_no_usage_is_counted_all_the_same(world: World) -> None:
    before = world.ids()
    ask(world.gateway.url, stream_options=None)
    assert [record["tokens_out"] for record in world.newest(before)] == [TOKENS]
    before = world.ids()
    ask(world.gateway.url, truncate_prompt_tokens=50)
    assert [record["tokens_out"] for record in world.newest(before)] == [TOKENS], "one that cannot be continued"


def test_a_client_that_leaves_pays_for_the_tokens_that_it_got(world: World) -> None:
    before = world.ids()
    body = {"model": "llama", **COMPLETION, "stream": True, "max_tokens": 3000, "ignore_eos": True}
    with httpx.stream("POST", f"{world.gateway.url}/v1/completions", json=body, timeout=60) as response:
        reading = response.iter_lines()
        for _ in range(12):
            next(reading)
    (record,) = world.newest(before)
    assert record["outcome"] == "client_left"
    assert 6 <= record["tokens_out"] < 60  # type: ignore[operator]


def test_a_stream_that_lost_its_relay_is_a_failed_one_of_unknown_length(world: World) -> None:
    before = world.ids()
    assert world.gateway.relay is not None
    with pytest.raises(httpx.TransportError):
        ask(world.gateway.url, world.gateway.relay.kill)
    (record,) = world.newest(before)
    assert (record["outcome"], record["tokens_out"], record["status"]) == ("failed", None, 200)


def test_without_its_relay_a_stream_has_the_record_that_envoy_makes(world: World) -> None:
    assert world.gateway.relay is not None
    world.gateway.relay.kill()
    before = world.ids()
    ask(world.gateway.url)
    (record,) = world.newest(before)
    assert (record["outcome"], record["tokens_out"], record["stream"]) == ("completed", TOKENS, True)


def test_a_refused_stream_is_one_record(world: World) -> None:
    before = world.ids()
    body = {"model": "llama", "prompt": "x", "stream": True, "max_tokens": 10_000_000}
    assert httpx.post(f"{world.gateway.url}/v1/completions", json=body, timeout=60).status_code == 400
    (record,) = world.newest(before)
    assert (record["outcome"], record["status"], record["tokens_out"]) == ("refused", 400, None)


def test_nothing_of_all_that_came_twice_or_was_lost(world: World) -> None:
    assert len(world.kept.all()) == len(world.ids())
    assert metric(world.gateway, "holdfast_ledger_lost_records_total") == 0
