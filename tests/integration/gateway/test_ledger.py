"""The spool under a real Envoy: turned, bounded, full, and what a kill costs."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.gateway.bed import Bed, Gateway, status_of, wait_for
from tests.integration.gateway.conftest import MakeBed
from tests.integration.gateway.records import STATUS_PORT, Kept, metric, once, ships
from tests.integration.gateway.test_ledger_answers import USAGE

from holdfast_gateway.ledger import segments
from holdfast_gateway.ledger.follower import Follower
from holdfast_gateway.ledger.record import Record, Source
from holdfast_gateway.ledger.shipper import Settings, Shipper
from holdfast_gateway.ledger.sinks.file import FileSink, utc_now
from holdfast_gateway.ledger.sinks.port import SinkUnavailable

pytestmark = pytest.mark.integration

LONG = "x" * 250
CLIENT = httpx.Client(verify=False, timeout=30)


@pytest.fixture
def bed(make_bed: MakeBed) -> Bed:
    """One region with a ledger's spool."""
    made: Bed = make_bed(regions={"us": 1}, ledger=True)
    made.start(edge=False)
    return made


def ask(gateway: Gateway, name: str, model: str = "llama") -> int:
    """One request; its status."""
    body = {"model": model, "say": {"usage": USAGE}}
    headers = {"x-request-id": name}
    return CLIENT.post(f"{gateway.url}/v1/completions", json=body, headers=headers).status_code


def spooled(gateway: Gateway) -> str:
    """All that lies in the spool."""
    directory = gateway.directory / "ledger"
    return "".join(path.read_text() for path, _ in segments.listed(directory, Source.ENVOY))


def test_envoy_goes_on_in_a_new_file_when_its_own_was_turned_and_nothing_is_lost(bed: Bed, tmp_path: Path) -> None:
    gateway, kept = bed.gateways["us"], Kept(tmp_path / "kept")
    reads = Follower(gateway.directory / "ledger")
    followed: list[Record] = []
    shipper = ships(gateway, kept.sink, "--spool-max", "1048576")
    try:
        for number in range(400):
            ask(gateway, f"n{number}-{LONG}", "llama" if number % 2 else LONG)
            followed += reads.read(0.0).records
        wait_for(lambda: len(once(kept.all())) == 400, "all records have come")
        assert len(kept.all()) == 400
        assert metric(gateway, "holdfast_ledger_lost_records_total") == 0
        assert metric(gateway, "holdfast_ledger_shipped_total") == 400
        assert metric(gateway, "holdfast_ledger_spool_bytes") < 100_000, "what was shipped is gone"
        wait_for(lambda: len(followed) == 400 or bool(followed.extend(reads.read(0.0).records)), "the follower's")
        assert sorted(record.id for record in followed) == sorted(record["id"] for record in kept.all())
    finally:
        shipper.kill()


def test_a_kill_of_envoy_costs_what_it_had_not_flushed(bed: Bed) -> None:
    gateway = bed.gateways["us"]
    with httpx.Client() as client:
        sent = 0
        for number in range(200):
            client.post(
                f"{gateway.url}/v1/completions", json={"model": "llama"}, headers={"x-request-id": f"k{number}"}
            )
            sent += 1
        gateway.kill_envoy()
    lost = sent - spooled(gateway).count("\n")
    assert lost < sent
    print(f"a kill of Envoy lost {lost} of {sent} records, of the last 0.2 s")
    wait_for(lambda: status_of(f"{gateway.url}/ready") == 200, "Envoy is back")
    wait_for(lambda: gateway.healthy_engines() == 1, "and knows its engine")
    assert ask(gateway, "after") == 200
    wait_for(lambda: '"request_id":"after"' in spooled(gateway), "and goes on")


def test_an_envoy_that_is_stopped_loses_nothing_and_the_ledger_ships_to_the_end(bed: Bed, tmp_path: Path) -> None:
    gateway, kept = bed.gateways["us"], Kept(tmp_path / "kept")
    shipper = ships(gateway, kept.sink)
    wait_for(lambda: metric(gateway, "holdfast_ledger_lag") == 0, "the ledger is up")
    shipper.terminate()
    for number in range(20):
        ask(gateway, f"s{number}")
    gateway.server.terminate()
    assert gateway.server.wait(60) == 0
    assert shipper.wait(60) == 0
    assert len(once(kept.all())) == 20


class Away:
    """A sink that takes nothing."""

    async def write(self, records: Any) -> list[Record]:
        raise SinkUnavailable("away")

    async def close(self) -> None:
        pass


def test_a_spool_beyond_its_size_loses_the_eldest_and_says_so(tmp_path: Path) -> None:
    line = '{"attempts":1,"id":"%d","time":"2026-01-02T03:04:05Z","status":200,"path":"' + "x" * 1000 + '"}\n'
    directory = tmp_path / "spool"
    directory.mkdir()
    shipper = Shipper(Settings(directory, "gw", spool_max=1024 * 1024), Away(), lambda: asyncio.sleep(0), utc_now)

    def step(made: Shipper) -> None:
        with pytest.raises(SinkUnavailable):
            asyncio.run(made.step(0.0))

    for start in range(0, 3000, 50):
        with segments.current(directory, Source.ENVOY).open("a") as file:
            file.writelines(line % number for number in range(start, start + 50))
        step(shipper)
        assert shipper.spool_bytes() < 1.2 * 1024 * 1024
    lost = sum(
        float(text.rpartition(" ")[2])
        for text in shipper.metrics.render().decode().splitlines()
        if text.startswith('holdfast_ledger_lost_records_total{reason="spool_full"}')
    )
    assert lost > 1500
    kept = Kept(tmp_path / "kept")
    # A ledger that starts now ships what is left: all but the lost ones, and those that the first had in hand.
    asyncio.run(
        Shipper(
            Settings(directory, "gw"), FileSink(kept.folder, "gw"), lambda: asyncio.sleep(0), utc_now
        ).finish(0.0)
    )  # fmt: skip
    left = {int(record["id"]) for record in kept.all()}
    assert left == set(range(3000 - len(left), 3000))
    assert 0 <= 3000 - len(left) - lost <= 1100


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_stops_no_answer_and_is_survived(make_bed: MakeBed, small_disk: Path, tmp_path: Path) -> None:
    bed: Bed = make_bed(regions={"us": 1}, ledger=True)
    (bed.folder / "us").mkdir(parents=True)
    (bed.folder / "us" / "ledger").symlink_to(small_disk)
    bed.start(edge=False)
    gateway, kept = bed.gateways["us"], Kept(tmp_path / "kept")
    (small_disk / "ballast").write_bytes(b"x" * 200_000)
    shipper = ships(gateway, "nats://127.0.0.1:1/nowhere")
    try:
        assert {ask(gateway, f"f{number}-{LONG}", LONG) for number in range(300)} == {404}
        assert gateway.stat("filesystem.write_failed") > 0
        healthz = f"http://{gateway.options.listen}:{STATUS_PORT}/healthz"
        wait_for(lambda: status_of(healthz) == 200, "the ledger lives")
        wait_for(lambda: metric(gateway, "holdfast_ledger_sink_failures_total") > 1, "it tries")
        shipper.kill()
        (small_disk / "ballast").unlink()
        shipper = ships(gateway, kept.sink)
        assert ask(gateway, "after") == 200
        kept.of("after")
        assert len(once(kept.all())) > 20
    finally:
        shipper.kill()
