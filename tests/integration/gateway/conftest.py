"""Beds for the tests: one that is only read, shared; and fresh ones for tests that break things."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.integration.debian import program
from tests.integration.gateway.api_stand_in import ApiStandIn
from tests.integration.gateway.bed import Bed
from tests.integration.gateway.processes import Server, cpu_engine
from tests.integration.gateway.relay_bench import Bench

from holdfast_engine.tiny_model import write_tiny_model

MakeBed = Callable[..., Bed]
MakeEngine = Callable[[str, str, int, Path], Server]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf").path


@pytest.fixture(scope="session")
def real(model: Path) -> MakeEngine:
    """Makes CPU engines with a tiny model."""
    return partial(cpu_engine, model=model)


@pytest.fixture(scope="session")
def nats_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of nats-server."""
    found = program("nats-server", tmp_path_factory.mktemp("nats-package"), "nats-server")
    if found is None:
        pytest.skip("nats-server is not to be had")
    return found.path


@pytest.fixture
def make_bed(tmp_path: Path) -> Iterator[MakeBed]:
    """Makes beds that are stopped at the end of the test."""
    made = []

    def make(**fields: Any) -> Bed:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Bed(folder, **fields))
        return made[-1]

    yield make
    for bed in made:
        bed.stop()


@pytest.fixture(scope="module")
def still_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Two regions and an edge that nothing happens to."""
    bed = Bed(tmp_path_factory.mktemp("still"), regions={"us": 2, "eu": 1})
    with bed.running():
        yield bed


@pytest.fixture(scope="module")
def shared_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Three regions and an edge, for tests that break something; use it through `whole_bed`."""
    bed = Bed(tmp_path_factory.mktemp("shared"), regions={"us": 2, "eu": 1, "ap": 1})
    with bed.running():
        yield bed


@pytest.fixture
def whole_bed(shared_bed: Bed) -> Bed:
    """The shared bed, with everything that an earlier test broke repaired."""
    shared_bed.repair()
    return shared_bed


@pytest.fixture
async def servers() -> AsyncIterator[list[ApiStandIn]]:
    """Two API servers that hold nothing yet."""
    made = [ApiStandIn(), ApiStandIn()]
    for server in made:
        await server.start()
    yield made
    for server in made:
        await server.stop()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A relay that is not started yet; the test scripts its upstreams."""
    made = Bench(tmp_path)
    yield made
    made.relay.kill()
    await made.outbound.stop()
