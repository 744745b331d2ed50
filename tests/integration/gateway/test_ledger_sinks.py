"""What every place for records must keep: a folder, and a real NATS server with JetStream."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats as nats_client
import pytest
from click.testing import CliRunner
from tests.integration.gateway.nats import SUBJECT, Nats
from tests.integration.gateway.records import Kept, once
from tests.unit.gateway.test_ledger_record import envoy

from holdfast_gateway.__main__ import main
from holdfast_gateway.ledger.record import Record, stamp
from holdfast_gateway.ledger.sinks.file import append
from holdfast_gateway.ledger.sinks.places import sink
from holdfast_gateway.ledger.sinks.port import Sink, SinkUnavailable

pytestmark = pytest.mark.integration


@dataclass
class Place:
    """A place and what is done to it."""

    sink: Sink
    kept: Callable[[], list[Any]]
    lose: Callable[[], None]
    restore: Callable[[], None]


@pytest.fixture(params=["file", "nats"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "file":
        folder = Kept(tmp_path / "kept")

        def lose() -> None:
            folder.folder.rename(tmp_path / "away")
            folder.folder.write_text("no folder")

        def restore() -> None:
            folder.folder.unlink()
            (tmp_path / "away").rename(folder.folder)

        yield Place(sink(folder.sink, "gw"), folder.all, lose, restore)
        return
    nats = Nats(request.getfixturevalue("nats_program"), tmp_path / "nats")
    nats.start()
    nats.make_stream()
    try:
        yield Place(sink(nats.sink, "gw"), nats.kept, nats.server.kill, nats.start)
    finally:
        nats.server.kill()


def some(*names: str) -> list[Record]:
    return [replace(envoy().record, id=name) for name in names]


async def in_thread(work: Callable[[], Any]) -> Any:
    """The tests' own client of NATS runs a loop of its own."""

    return await asyncio.to_thread(work)


async def test_what_is_acknowledged_is_kept_as_it_was_given(place: Place) -> None:
    assert await place.sink.write(some("a", "b")) == []
    assert await place.sink.write(some("c")) == []
    await place.sink.close()
    kept = await in_thread(place.kept)
    assert [record["id"] for record in kept] == ["a", "b", "c"]
    assert kept[0]["tokens_out"] == 4


def usage(nats: Nats, *options: str) -> list[Any]:
    """What `holdfast-gateway usage` makes of the stream."""
    done = CliRunner().invoke(main, ["usage", nats.sink, "--by", "tenant", "-o", "json", *options])
    assert done.exit_code == 0, done.output
    return list(json.loads(done.stdout))


def test_the_records_of_a_stream_are_added_up_where_they_are(nats_program: str, tmp_path: Path) -> None:
    nats = Nats(nats_program, tmp_path / "nats")
    nats.start()
    try:
        nats.make_stream()
        assert usage(nats) == []
        many = some(*map(str, range(1200)))
        old = replace(many[0], time="2020-01-02T03:04:05.000Z")
        new = replace(many[1], id="new", time=stamp(datetime.now(UTC)))

        async def fill() -> None:
            made = sink(nats.sink, "gw")
            await made.write([old, *many[1:], new])
            await made.close()

        asyncio.run(fill())
        asyncio.run(publish(nats, b"no record"))
        for _ in range(2):  # whoever reads takes nothing away
            (all_of_them,) = usage(nats)
            assert (all_of_them["tenant"], all_of_them["requests"]) == ("acme", 1201)
        (late,) = usage(nats, "--since", "1h")
        assert late["requests"] == 1
        assert usage(nats, "--since", "2999-01-01") == []
    finally:
        nats.server.kill()
    done = CliRunner().invoke(main, ["usage", nats.sink])
    assert (done.exit_code, "NATS stream usage at" in done.output) == (1, True)


async def publish(nats: Nats, text: bytes) -> None:
    """What somebody else writes into the stream."""
    connection = await nats_client.connect(f"nats://127.0.0.1:{nats.port}")
    await connection.jetstream().publish(SUBJECT, text)
    await connection.close()


async def test_what_is_given_twice_counts_once(place: Place) -> None:
    await place.sink.write(some("a", "b"))
    await place.sink.write(some("b", "c"))
    await place.sink.close()
    assert [record["id"] for record in once(await in_thread(place.kept))] == ["a", "b", "c"]


async def test_a_place_that_is_away_says_so_and_takes_the_same_again_when_it_is_back(place: Place) -> None:
    await place.sink.write(some("a"))
    await in_thread(place.lose)
    for _ in range(2):
        with pytest.raises(SinkUnavailable):
            await place.sink.write(some("b"))
    await in_thread(place.restore)
    await place.sink.write(some("b"))
    await place.sink.close()
    assert [record["id"] for record in once(await in_thread(place.kept))] == ["a", "b"]


async def test_nats_names_a_stream_that_there_is_not(nats_program: str, tmp_path: Path) -> None:
    nats = Nats(nats_program, tmp_path / "nats")
    await in_thread(nats.start)
    try:
        with pytest.raises(SinkUnavailable, match="NATS stream usage at 127"):
            await sink(nats.sink, "gw").write(some("a"))
    finally:
        nats.server.kill()


async def test_nats_refuses_what_is_too_large_for_it_and_keeps_the_rest(nats_program: str, tmp_path: Path) -> None:
    nats = Nats(nats_program, tmp_path / "nats")
    await in_thread(nats.start)
    await in_thread(nats.make_stream)
    try:
        large = replace(envoy().record, id="large", tenant="x" * 2_000_000)
        made = sink(nats.sink, "gw")
        assert await made.write([*some("a"), large, *some("b")]) == [large]
        await made.close()
        assert [record["id"] for record in await in_thread(nats.kept)] == ["a", "b"]
    finally:
        nats.server.kill()


def test_a_full_disk_keeps_nothing_of_a_batch_and_what_comes_after_is_whole(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small]).returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    try:
        path = small / "usage.jsonl"
        append(path, b"first\n")
        with pytest.raises(OSError, match="No space"):
            append(path, b"x" * 100_000 + b"\n")
        assert path.read_bytes() == b"first\n"
        append(path, b"second\n")
        with path.open("ab") as file:
            file.write(b"torn")
        append(path, b"third\n")
        assert path.read_bytes() == b"first\nsecond\ntorn\nthird\n"
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize("address", ["", "ftp://x", "file://x/y", "nats://host", "nats:///stream", "nats://h/a/b"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        sink(address, "gw")
