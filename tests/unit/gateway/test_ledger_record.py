"""What a request's record says, by the lines of Envoy and of the relay."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast_gateway.ledger.join import Join
from holdfast_gateway.ledger.lines import parse, split
from holdfast_gateway.ledger.record import Entry, Outcome, Source, loaded, read

RELAY = "127.0.0.1:9904"
LINE: dict[str, Any] = {
    "attempts": 1, "cluster": "service/default/chat", "error": None, "flags": "-", "id": "one", "latency_ms": 20,
    "method": "POST", "model": "llama", "path": "/v1/completions", "region": "us", "request_id": "r", "revision": None,
    "status": 200, "stream": None, "tenant": "acme", "time": "2026-01-02T03:04:05.678Z", "tokens_in": 3,
    "tokens_out": 4, "ttft_ms": 10, "upstream": "10.0.0.1:8081",
}  # fmt: skip
RELAYED = {
    "attempts": 2, "id": "one", "latency_ms": 19, "model": "llama", "outcome": "completed", "region": "us",
    "regions": ["us", "eu"], "resumed": 1, "stream": True, "time": "2026-01-02T03:04:05.679+00:00", "tokens_in": 5,
    "tokens_out": 6, "ttft_ms": 11,
}  # fmt: skip


def envoy(**fields: Any) -> Entry:
    return read(Source.ENVOY, LINE | fields, "gw", RELAY)


def relayed(**fields: Any) -> Entry:
    return read(Source.RELAY, RELAYED | fields, "gw", RELAY)


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({}, Outcome.COMPLETED),
        ({"status": 404, "flags": "NR"}, Outcome.REFUSED),
        ({"status": 429, "flags": "RL"}, Outcome.REFUSED),
        ({"status": 503, "flags": "UH"}, Outcome.FAILED),
        ({"status": 503, "flags": "URX,UF"}, Outcome.FAILED),
        ({"status": 200, "flags": "UC"}, Outcome.FAILED),
        ({"status": 200, "flags": "UR"}, Outcome.FAILED),
        ({"status": 200, "error": True}, Outcome.FAILED),
        ({"status": 0, "flags": "DC"}, Outcome.CLIENT_LEFT),
        ({"status": 200, "flags": "DC,UR"}, Outcome.CLIENT_LEFT),
        ({"status": 0, "flags": "-"}, Outcome.FAILED),
    ],
)
def test_an_outcome_follows_from_status_and_flags(fields: dict[str, Any], outcome: Outcome) -> None:
    assert envoy(**fields).record.outcome is outcome


def test_what_is_not_known_is_null_and_numbers_are_numbers() -> None:
    record = envoy(tokens_in=None, tokens_out="7", status=0, region=None, stream="yes", tenant="-").record
    written = json.loads(record.line())
    assert written["tokens_in"] is written["tokens_out"] is written["status"] is written["tenant"] is None
    assert (written["stream"], written["regions"], written["service"]) == (False, [], "default/chat")
    assert loaded(written) == record


@pytest.mark.parametrize(
    "fields", [{"id": None}, {"time": "yesterday"}, {"time": None}, {"time": "2026-01-01T00:00:00"}]
)
def test_a_line_without_an_id_or_a_time_is_no_record(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        envoy(**fields)


def test_a_request_that_did_not_pass_the_relay_waits_for_nobody() -> None:
    join = Join(grace=5)
    assert [record.id for record in join.add(envoy())] == ["one"]
    assert join.add(envoy()) == []
    assert join.duplicates == 1


@pytest.mark.parametrize("turned", [False, True])
def test_a_stream_is_one_record_with_the_relays_tokens_and_envoys_end(turned: bool) -> None:
    join = Join(grace=5)
    lines = [envoy(upstream=RELAY, tokens_out=None, flags="DC"), relayed()]
    first, second = reversed(lines) if turned else lines
    assert join.add(first) == []
    (record,) = join.add(second)
    assert (record.tokens_in, record.tokens_out, record.ttft_ms, record.resumed, record.attempts) == (5, 6, 11, 1, 2)
    assert (record.outcome, record.latency_ms, record.regions) == (Outcome.CLIENT_LEFT, 20, ("us", "eu"))
    assert join.add(second) == [] == join.held


def test_a_stream_that_ended_with_an_error_event_has_failed() -> None:
    join = Join(grace=5)
    join.add(envoy(upstream=RELAY))
    (record,) = join.add(relayed(outcome="failed"))
    assert record.outcome is Outcome.FAILED


def test_who_waits_for_a_dead_one_goes_alone_after_the_grace_of_a_spool_that_was_read() -> None:
    join = Join(grace=5)
    join.add(envoy(upstream=RELAY, tokens_in=None, tokens_out=None, flags="UC"))
    assert join.expire(now=100) == []
    assert join.expire(now=104.9) == []
    (record,) = join.expire(now=105)
    assert (record.outcome, record.tokens_out) == (Outcome.FAILED, None)
    assert join.add(relayed()) == []


def test_what_the_relay_says_of_a_request_that_envoy_took_elsewhere_does_not_count() -> None:
    join = Join(grace=5)
    join.add(relayed(outcome="client_left"))
    (record,) = join.add(envoy())
    assert (record.outcome, record.tokens_out) == (Outcome.COMPLETED, 4)
    assert join.expire(now=1000) == []


def test_a_half_line_costs_no_whole_one() -> None:
    whole = json.dumps(LINE, separators=(",", ":")).encode()
    for cut in range(1, len(whole)):
        parsed = parse(whole[:cut] + whole)
        assert parsed.good == [LINE]
        assert len(parsed.broken) == 1
    assert parse(b"") == parse(b"\r") == parse(b"\0\0") == parse(b" ")
    assert parse(b"[]{").broken == [b"[]{"]


def test_a_line_is_given_when_it_is_complete_or_nobody_writes_on() -> None:
    assert split(b"ab\ncd", final=False) == ([b"ab", b""], 3)
    assert split(b"ab\ncd", final=True) == ([b"ab", b"cd"], 5)
    assert split(b"abcd", final=False) == ([b""], 0)
