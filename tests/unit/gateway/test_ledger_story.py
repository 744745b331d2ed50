"""Whole stories of a spool: writers that die within a line, files that are turned, a shipper that dies at any point, a
sink that comes and goes. Whatever happens, each request has one record that counts, and what it says is right."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from tests.unit.gateway.test_ledger_record import LINE, RELAY, RELAYED

from holdfast_gateway.ledger import segments
from holdfast_gateway.ledger.follower import Follower
from holdfast_gateway.ledger.record import Record, Source
from holdfast_gateway.ledger.shipper import Settings, Shipper
from holdfast_gateway.ledger.sinks.port import SinkUnavailable

GRACE = 5.0


class Crash(BaseException):
    """The process dies here."""


class MemorySink:
    """Keeps what it is given; fails and dies as it is told."""

    def __init__(self) -> None:
        self.kept: list[Record] = []
        self.trouble: str | None = None

    async def write(self, records: Sequence[Record]) -> list[Record]:
        trouble, self.trouble = self.trouble, None
        if trouble == "away":
            raise SinkUnavailable("away")
        if trouble == "dies before":
            raise Crash
        if trouble in ("half", "half and dies"):
            self.kept += records[: len(records) // 2]
            raise Crash if trouble == "half and dies" else SinkUnavailable("half")
        self.kept += records
        if trouble == "dies after":
            raise Crash
        return []

    async def close(self) -> None:
        pass

    def counting(self) -> dict[str, Record]:
        """Of several with one id the first."""
        return {record.id: record for record in reversed(self.kept)}


class Story(RuleBasedStateMachine):
    """One gateway's spool."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-story-"))
        self.sink = MemorySink()
        self.now = 0.0
        self.number = 0
        self.expected: dict[str, dict[str, Any]] = {}
        self.descriptors: dict[Source, Any] = {}
        self.torn: set[Source] = set()

    @initialize()
    def start(self) -> None:
        self.write(Source.ENVOY, LINE | {"id": "last-envoy"})  # before the follower's time
        self.follower = Follower(self.folder, "gw", RELAY, GRACE)
        self.followed: list[Record] = []
        self.shipper = self.made()

    def made(self) -> Shipper:
        return Shipper(
            Settings(self.folder, "gw", RELAY, GRACE), self.sink, self.reopen, lambda: datetime(2026, 1, 3, tzinfo=UTC)
        )

    async def reopen(self) -> None:
        self.reopened(Source.ENVOY)

    def reopened(self, source: Source) -> None:
        if (old := self.descriptors.pop(source, None)) is not None:
            old.close()

    def file(self, source: Source) -> Any:
        if source not in self.descriptors:
            path = segments.current(self.folder, source)
            self.descriptors[source] = path.open("ab", buffering=0)
        return self.descriptors[source]

    def write(self, source: Source, fields: dict[str, Any]) -> None:
        if source is Source.RELAY:
            self.reopened(source)  # opened for each line
        data = json.dumps(fields, separators=(",", ":"), sort_keys=True).encode() + b"\n"
        if source is Source.RELAY and source in self.torn:
            data = b"\n" + data
        self.torn.discard(source)
        self.file(source).write(data)

    @rule(
        kind=st.sampled_from(["direct", "relayed", "relay first", "relay dies", "envoy dies"]), tokens=st.integers(0, 9)
    )
    def request(self, kind: str, tokens: int) -> None:
        self.number += 1
        name = f"r{self.number}"
        envoy = LINE | {"id": name, "tokens_out": tokens, "upstream": "10.0.0.1:8081" if kind == "direct" else RELAY}
        relay = RELAYED | {"id": name, "tokens_out": tokens + 100}
        self.expected[name] = {"tokens": tokens + 100, "kind": kind}
        match kind:
            case "direct":
                self.write(Source.ENVOY, envoy)
                self.expected[name]["tokens"] = tokens
            case "relayed":
                self.write(Source.ENVOY, envoy)
                self.write(Source.RELAY, relay)
            case "relay first":
                self.write(Source.RELAY, relay)
                self.write(Source.ENVOY, envoy)
            case "relay dies":
                self.write(Source.ENVOY, envoy)
                self.expected[name]["tokens"] = tokens
            case "envoy dies":
                self.write(Source.RELAY, relay)

    @rule(source=st.sampled_from(Source), part=st.integers(1, 200))
    def writer_dies_within_a_line(self, source: Source, part: int) -> None:
        fields = {"id": "torn"} | (LINE if source is Source.ENVOY else RELAYED) | {"id": "torn"}
        data = json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()
        if source is Source.RELAY:
            self.reopened(source)
        self.file(source).write(data[: min(part, len(data) - 1)])
        self.reopened(source)
        self.torn.add(source)

    @rule(source=st.sampled_from(Source))
    def a_file_is_turned(self, source: Source) -> None:
        if segments.current(self.folder, source).exists():
            segments.turn(self.folder, source)

    @rule()
    def envoy_starts_again(self) -> None:
        self.reopened(Source.ENVOY)

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0]))
    def time_goes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        trouble=st.sampled_from([None, None, "away", "dies before", "dies after", "half", "half and dies", "forgets"])
    )
    def ship(self, trouble: str | None) -> None:
        self.sink.trouble = trouble
        self.attempt(self.shipper, forgets=trouble == "forgets")

    @rule()
    def shipper_starts_again(self) -> None:
        self.shipper = self.made()

    @rule()
    def follow(self) -> None:
        self.followed += self.follower.read(self.now).records

    def attempt(self, shipper: Shipper, forgets: bool = False) -> None:
        if forgets:
            shipper._remember = self.crash  # type: ignore[method-assign]
        try:
            asyncio.run(shipper.step(self.now))
        except SinkUnavailable:
            pass
        except Crash:
            self.shipper = self.made()

    @staticmethod
    def crash() -> None:
        raise Crash

    def teardown(self) -> None:
        self.sink.trouble = None
        for source in Source:
            self.write(source, (LINE if source is Source.ENVOY else RELAYED) | {"id": f"last-{source}"})
        for _ in range(2 * (self.number + 20)):
            self.attempt(self.shipper)
        self.now += 2 * GRACE
        self.attempt(self.shipper)
        self.now += 2 * GRACE
        asyncio.run(self.shipper.finish(self.now))
        shutil.rmtree(self.folder)
        found = self.sink.counting()
        assert self.expected.keys() <= found.keys()
        assert found.keys() <= self.expected.keys() | {"last-envoy", "last-relay"}
        for name, expected in self.expected.items():
            assert found[name].tokens_out == expected["tokens"], (name, expected)
        names = [record.id for record in self.followed]
        assert "last-envoy" not in names
        assert len(names) == len(set(names)), "a follower gives each once"


Story.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStory = Story.TestCase
