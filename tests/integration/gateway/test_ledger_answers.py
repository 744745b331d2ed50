"""Exactly one answer, and one record of it: while engines and regions die, and with them the ledger and its sink."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.integration.gateway.bed import Bed, wait_for
from tests.integration.gateway.conftest import MakeBed
from tests.integration.gateway.nats import Nats
from tests.integration.gateway.processes import Server
from tests.integration.gateway.records import Kept, counts, metric, once, ships

pytestmark = pytest.mark.integration

USAGE = {"prompt_tokens": 11, "completion_tokens": 7}
RATE, SECONDS = 30, 6.0
Answers = list[tuple[str, int, int]]


async def one(session: aiohttp.ClientSession, url: str, name: str, at: float, seconds: float) -> tuple[str, int, int]:
    """Name, status (0 without an answer) and tokens of one request at its moment."""
    await asyncio.sleep(max(0.0, at - time.monotonic()))
    body = {"model": "llama", "seconds": seconds, "say": {"usage": USAGE}}
    try:
        async with session.post(f"{url}/v1/completions", json=body, headers={"x-request-id": name}) as response:
            answer = await response.json(content_type=None)
            return name, response.status, answer.get("usage", {}).get("completion_tokens", 0)
    except (aiohttp.ClientError, TimeoutError):
        return name, 0, 0


async def load(url: str, faults: list[tuple[float, Callable[[], None]]]) -> Answers:
    """Sends requests on schedule; at their moments, the faults happen."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=60), connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        start = time.monotonic()
        sent = [
            asyncio.create_task(one(session, url, f"q{n}", start + n / RATE, (0.02, 1.0)[n % 2]))
            for n in range(int(RATE * SECONDS))
        ]
        for at, fault in faults:
            await asyncio.sleep(max(0.0, start + at - time.monotonic()))
            await asyncio.to_thread(fault)
        return list(await asyncio.gather(*sent))


def check(answers: Answers, records: list[Any]) -> str:
    """Every request has one record, which says what its client heard; a summary for people."""
    kept = once(records)
    by_name = Counter(record["request_id"] for record in kept)
    assert by_name == Counter(name for name, _, _ in answers), "one record for each request, none missing"
    found = {record["request_id"]: record for record in kept}
    for name, status, tokens in answers:
        record = found[name]
        assert (record["status"] or 0, record["tokens_out"] or 0) == (status, tokens), record
        assert record["outcome"] == ("completed" if status == 200 else "failed")
    heard = Counter(status for _, status, _ in answers)
    return f"{len(answers)} requests, answers {dict(heard)}, {len(records)} records, {len(kept)} ids"


@pytest.mark.parametrize("fault", [Server.kill, Server.freeze], ids=["killed", "frozen"])
@pytest.mark.parametrize("place", ["file", "nats"])
async def test_each_request_has_one_answer_and_one_record_whatever_dies(
    make_bed: MakeBed, tmp_path: Path, request: pytest.FixtureRequest, fault: Callable[[Server], None], place: str
) -> None:
    bed: Bed = make_bed(regions={"us": 2, "eu": 1}, ledger=True)
    nats = Nats(request.getfixturevalue("nats_program"), tmp_path / "nats") if place == "nats" else None
    kept = Kept(tmp_path / "kept")
    if nats is not None:
        await asyncio.to_thread(nats.start)
        await asyncio.to_thread(nats.make_stream)
    await asyncio.to_thread(bed.start)
    edge = bed.gateways["edge"]
    shipper = ships(edge, nats.sink if nats is not None else kept.sink)

    def lose_region() -> None:
        fault(bed.engines["eu-0"])
        fault(bed.gateways["eu"].server)

    def sink_goes() -> None:
        if nats is not None:
            nats.server.kill()
        else:
            kept.folder.rename(tmp_path / "away")
            kept.folder.write_text("no folder")

    def sink_comes() -> None:
        if nats is not None:
            nats.start()
        else:
            kept.folder.unlink()
            (tmp_path / "away").rename(kept.folder)

    def ledger_dies() -> None:
        shipper.kill()
        shipper.start()

    wait_for_up = lambda: metric(edge, "holdfast_ledger_lag") == 0  # noqa: E731
    await asyncio.to_thread(wait_for, wait_for_up, "the ledger is up")
    try:
        answers = await load(
            edge.url,
            [
                (1.0, lambda: fault(bed.engines["us-0"])),
                (1.5, ledger_dies),
                (2.0, sink_goes),
                (2.5, lose_region),
                (3.5, ledger_dies),
                (4.0, sink_comes),
                (4.5, ledger_dies),
            ],
        )
        done = lambda: metric(edge, "holdfast_ledger_lag") == 0 and len(once(read())) >= len(answers)  # noqa: E731
        read = kept.all if nats is None else nats.kept
        await asyncio.to_thread(wait_for, done, "all records have come")
        records = await asyncio.to_thread(read)
        print(check(answers, records))
        assert metric(edge, "holdfast_ledger_lost_records_total") == 0
        assert counts(once(records), "outcome")["completed"] > 0.9 * len(answers)
    finally:
        shipper.kill()
        if nats is not None:
            nats.server.kill()
