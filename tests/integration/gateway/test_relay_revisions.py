"""A stream goes on with the revision that began it, and with no other."""

from __future__ import annotations

import json

import pytest
from tests.integration.gateway.outbound_stand_in import DONE, chunk, refusal, stream
from tests.integration.gateway.relay_bench import BEGIN, REST, SERVICE, Bench, told

pytestmark = pytest.mark.integration

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
