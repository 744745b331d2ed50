"""A request that waits long is asked a second time elsewhere, if its service wants that: real Envoys, slow engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.integration.gateway.bed import ENGINE_PORT, Bed, wait_for

pytestmark = pytest.mark.integration
AFTER = timedelta(seconds=1)
SLOW = 8.0


def engine_says(bed: Bed, region: str, path: str, number: int = 0) -> dict[str, Any]:
    """The answer of an engine to the test itself."""
    address = bed.engine_addresses(region)[number]
    with httpx.Client(http1=False, http2=True, timeout=20) as client:
        found: dict[str, Any] = client.get(f"http://{address}:{ENGINE_PORT}{path}").json()
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Two regions with an engine each, and no relay: streams go straight to the regions."""
    bed = Bed(tmp_path_factory.mktemp("hedging"), regions={"us": 1, "eu": 1})
    with bed.running(edge=False):
        yield bed


@pytest.fixture
def bed(whole: Bed) -> Bed:
    """The engine of `us` is slow."""
    engine_says(whole, "us", f"/set-slow?{SLOW}")
    engine_says(whole, "eu", "/set-slow?0")
    return whole


def hedge(bed: Bed, after: timedelta | None) -> None:
    """Gives the gateway of `us` routes that hedge, or do not."""
    bed.route_fields = {"hedge_after": after}
    bed.gateways["us"].take(bed.snapshot("us"))


def ask(bed: Bed, **fields: Any) -> tuple[httpx.Response, float]:
    """An answer to a request at `us`, and the seconds that it took."""
    began = time.monotonic()
    body = {"model": "llama", **fields}
    answer = httpx.post(f"{bed.gateways['us'].url}/v1/completions", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer, time.monotonic() - began


def counts(bed: Bed) -> dict[str, tuple[int, int]]:
    """Region → requests that its engine has begun, and those that were cancelled."""
    said = {region: engine_says(bed, region, "/state") for region in bed.regions}
    return {region: (state["begun"], state["cancelled"]) for region, state in said.items()}


def test_another_region_answers_what_waits_and_the_slow_work_is_cancelled(bed: Bed) -> None:
    hedge(bed, AFTER)
    before = counts(bed)
    answer, took = ask(bed)
    ended = time.monotonic()
    assert (answer.json()["engine"], answer.headers["x-holdfast-region"]) == ("eu-0", "eu")
    wait_for(lambda: counts(bed)["us"][1] == before["us"][1] + 1, "the slow engine's work is cancelled")
    print(f"answered after {took:.2f} s instead of {SLOW} s, cancelled within {time.monotonic() - ended:.2f} s")
    after = counts(bed)
    assert AFTER.total_seconds() <= took < SLOW
    assert time.monotonic() - ended < 5  # a second on a machine that has time
    assert (after["us"][0] - before["us"][0], after["eu"][0] - before["eu"][0]) == (1, 1)
    assert after["eu"][1] == before["eu"][1]


def test_the_first_answer_counts_also_if_it_is_that_of_the_first_engine(bed: Bed) -> None:
    hedge(bed, AFTER)
    engine_says(bed, "us", "/set-slow?2.5")
    engine_says(bed, "eu", f"/set-slow?{SLOW}")
    before = counts(bed)
    answer, took = ask(bed)
    assert answer.json()["engine"] == "us-0"
    assert took < SLOW
    wait_for(lambda: counts(bed)["eu"][1] > before["eu"][1], "the later engine's work is cancelled")


@pytest.mark.parametrize("fields", [{"stream": True, "seconds": 1}, {"seconds": 0}], ids=["stream", "quick"])
def test_streams_and_what_is_answered_in_time_are_asked_once(bed: Bed, fields: dict[str, Any]) -> None:
    hedge(bed, AFTER)
    engine_says(bed, "us", f"/set-slow?{1.5 if fields.get('stream') else 0}")
    before = counts(bed)
    answer, _ = ask(bed, **fields)
    assert answer.json()["engine"] == "us-0"
    assert counts(bed)["eu"] == before["eu"]


def test_by_default_nothing_is_asked_twice(bed: Bed) -> None:
    hedge(bed, None)
    engine_says(bed, "us", "/set-slow?3")
    before = counts(bed)
    answer, took = ask(bed)
    assert (answer.json()["engine"], counts(bed)["eu"]) == ("us-0", before["eu"])
    assert took >= 3


def test_in_a_single_region_the_other_engine_is_asked(make_bed: Callable[..., Bed]) -> None:
    bed = make_bed(regions={"us": 2}, route_fields={"hedge_after": AFTER})
    bed.start(edge=False)
    engine_says(bed, "us", f"/set-slow?{SLOW}")
    for _ in range(4):
        answer, took = ask(bed)
        assert answer.json()["engine"] == "us-1"
        assert took < SLOW
