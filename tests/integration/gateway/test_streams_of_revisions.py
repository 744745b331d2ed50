"""A stream goes on with the model that began it while a rollout replaces it: real Envoys, relays and engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.gateway.bed import status_of, wait_for
from tests.integration.gateway.processes import Server, cpu_engine
from tests.integration.gateway.sides import NEW, OLD, Sides
from tests.integration.gateway.streaming import ask

from holdfast_engine.tiny_model import write_tiny_model
from holdfast_gateway.state import Snapshot

pytestmark = pytest.mark.integration
RUNS = {"us": (NEW,), "eu": (OLD, OLD, NEW)}


class Rollout(Sides):
    """Regions in the midst of a rollout; Pods in `ended` are gone."""

    ended: frozenset[str] = frozenset()

    def snapshot(self, region: str) -> Snapshot:
        seen = super().snapshot(region)
        names = {f"{region}-{at}": address for at, address in enumerate(self.engine_addresses(region))}
        left = tuple(address for name, address in names.items() if name not in self.ended)
        return replace(seen, engines={seen.routes[0].key: left})


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rollout]:
    """One region runs the new model, the other one both, mostly the old; no shares: engines are alike."""
    folder = tmp_path_factory.mktemp("rollout")
    models = {
        revision: write_tiny_model(folder / f"{revision}.gguf", seed=seed).path
        for seed, revision in enumerate((NEW, OLD), 1)
    }

    def engine(name: str, address: str, port: int, place: Path) -> Server:
        region, number = name.split("-")
        return cpu_engine(name, address, port, place, models[RUNS[region][int(number)]])

    made = Rollout(folder, runs=RUNS, make_engine=engine, relay_flags=("--resume-search", "2"))
    with made.running(edge=False):
        yield made


def test_a_stream_goes_on_with_the_model_that_began_it_and_ends_when_that_is_nowhere(bed: Rollout) -> None:
    url = bed.gateways["us"].url
    undisturbed = ask(url)
    assert undisturbed.headers["x-holdfast-revision"] == NEW
    assert ask(bed.gateways["eu"].url).headers["x-holdfast-revision"] in (OLD, NEW)
    for _ in range(3):
        got = ask(url, bed.engines["us-0"].kill)
        assert ": resumed from us in eu" in got.raw
        assert got.seen() == undisturbed.seen()
        bed.engines["us-0"].start()
        address = bed.engine_addresses("us")[0]
        wait_for(lambda address=address: status_of(f"http://{address}:8000/health") == 200, "it is up again")
        bed.repair()

    def replaced() -> None:
        """The rollout ends: no Pod of the revision is left."""
        bed.ended = frozenset({"us-0", "eu-2"})
        bed.engines["us-0"].kill()
        bed.engines["eu-2"].kill()
        bed.renew()

    got = ask(url, replaced)
    assert not got.ended
    assert got.chunks[-1]["error"]["code"] == "revision_gone", json.dumps(got.chunks[-1])
    assert undisturbed.text.startswith(got.text)
    assert ask(url).headers["x-holdfast-revision"] == OLD
