"""How streams are read and what is computed of them."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from holdfast_chaos.bench.cases.relay import FULL, PACED, STREAMS, Turn, figures, full_table, way_results
from holdfast_chaos.bench.stream_client import Tokens, Window, request
from holdfast_chaos.bench.stream_stand_in import FIRST, LAST, TOKEN
from holdfast_chaos.bench.stream_ways import RELAY
from holdfast_chaos.bench.ways import GATEWAY, PEER, Way

WAYS = [Way(GATEWAY, "", (1,)), Way(RELAY, "", (2, 3)), Way(PEER, "", (4,))]


@given(st.lists(st.integers(1, 60)))
def test_every_token_is_found_once_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    moments = [12345.25, 12345.5, 12346.0]
    rest = FIRST + b"".join(TOKEN.replace("@", f"{each:.6f} ", 1).encode() for each in moments) + LAST
    tokens, found = Tokens(), list[float]()
    for cut in cuts:
        found += tokens.feed(rest[:cut])
        rest = rest[cut:]

    assert found + tokens.feed(rest) == moments


def test_the_stand_in_is_asked_for_a_greedy_stream() -> None:
    head, _, body = request("/v1/chat/completions", "bench", 7, 0.5, 3).partition(b"\r\n\r\n")
    asked = json.loads(body)

    assert f"content-length: {len(body)}".encode() in head
    assert (asked["stream"], asked["temperature"], asked["max_tokens"]) == (True, 0, 7)
    assert asked["messages"][-1]["content"] == "0.5 3"


def turns(way: Way, window: Window | None) -> list[Turn]:
    return [Turn(way.name, mode, count, window) for mode in (FULL, PACED) for count in STREAMS]


def window(*cpu: float, delay: float = 0.001) -> Window:
    return Window(1000, 0.5, cpu, (delay,) * 10, b"")


def results(peers: Window | None) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    windows = [window(0.1), window(0.2, 0.3, delay=0.003), peers]
    found = [each for way, of in zip(WAYS, windows, strict=True) for each in turns(way, of)]
    return {way.name: way_results(found, way) for way in WAYS}


def test_the_relays_own_processor_time_is_told_apart_from_its_gateways() -> None:
    one = results(window(1.0))[RELAY][FULL]["64"]

    assert (one["tokens_per_second"], one["tokens_per_proxy_cpu_second"]) == (2000.0, 2000.0)
    assert one["tokens_per_last_process_cpu_second"] == 3333.333


def test_the_time_that_the_relay_adds_is_beside_the_same_streams_without_it() -> None:
    found = {each.name: each for each in figures(results(window(1.0)), {RELAY: [0, 2048]})}

    assert [round(each, 3) for each in found["time added to a token, p50"].values] == [2.0, 2.0, 2.0]
    assert found["tokens per CPU second, gateway and relay / LiteLLM"].values == [2.0]
    assert found["memory of an open stream, relay alone"].values == [2.0]


def test_a_peer_that_did_not_get_so_far_is_dashes() -> None:
    found = results(None)

    assert full_table(found).rows[-1] == ["LiteLLM, 64 streams", "–", "–", "–"]
    assert figures(found, {RELAY: [0, 2048]})[-1].values == []
