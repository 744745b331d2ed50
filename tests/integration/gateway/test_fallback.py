"""A service that no region can serve is answered by another one, if it names one: with that one's model, and openly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.integration.gateway.bed import ENGINE_PORT, Bed, wait_for
from tests.integration.gateway.processes import Server, engine

from holdfast_gateway.options import Role
from holdfast_gateway.state import Snapshot

pytestmark = pytest.mark.integration


class TwoServices(Bed):
    """`chat` with model `llama`, and `small` with model `tiny`, which stands in for it."""

    spare: dict[str, Server]

    def spare_address(self, region: str) -> str:
        """Where the region's engine of `small` is."""
        return self.address(region, 20)

    def snapshot(self, region: str) -> Snapshot:
        return self._with_spare(super().snapshot(region), region)

    def edge_snapshot(self) -> Snapshot:
        return self._with_spare(super().edge_snapshot(), next(iter(self.regions)))

    def _with_spare(self, seen: Snapshot, region: str) -> Snapshot:
        (chat,) = seen.routes
        small = chat.model_copy(update={"service": "small", "model": "tiny", "fallback": None})
        return replace(seen, routes=(chat, small), engines={**seen.engines, small.key: (self.spare_address(region),)})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoServices]:
    """Two regions and an edge, all with relays."""
    folder = tmp_path_factory.mktemp("fallback")
    bed = TwoServices(folder, regions={"us": 1, "eu": 1}, route_fields={"fallback": "small"}, relay_flags=())
    bed.spare = {name: engine(f"small-{name}", bed.spare_address(name), ENGINE_PORT, folder) for name in bed.regions}
    try:
        for server in bed.spare.values():
            server.start()
        bed.start()
        yield bed
    finally:
        bed.stop()
        for server in bed.spare.values():
            server.kill()


@pytest.fixture
def bed(whole: TwoServices) -> TwoServices:
    """With everything alive, and known to be."""
    for server in whole.spare.values():
        if not server.running():
            server.start()
    whole.repair()
    for found in whole.gateways.values():
        if found.options.role is Role.REGIONAL:
            stat = r"^cluster\.local/default/small\.membership_healthy$"
            wait_for(lambda found=found, stat=stat: found.stat(stat) == 1, "the other service is there")
        stat = r"^cluster\.service/default/small\.membership_healthy$"
        wait_for(lambda found=found, stat=stat: found.stat(stat) == 2, "its regions are known")
    return whole


def ask(bed: Bed, gateway: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    """One chat of the model `llama`."""
    body = {"model": "llama", "messages": [{"role": "user", "content": 'a \u00e9 "q"'}]} | fields
    url = f"{bed.gateways[gateway].url}/v1/chat/completions"
    return httpx.post(url, json=body, headers=headers, timeout=20)


@pytest.mark.parametrize("gateway", ["us", "edge"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_another_model_answers_openly_when_no_region_can_and_only_then(
    bed: TwoServices, gateway: str, stream: bool
) -> None:
    own = ask(bed, gateway, stream=stream)
    assert (own.json()["model"], "x-holdfast-model" in own.headers) == ("llama", False)
    bed.engines["us-0"].kill()
    other_region = ask(bed, gateway, stream=stream)
    assert (other_region.json()["engine"], "x-holdfast-model" in other_region.headers) == ("eu-0", False)
    bed.engines["eu-0"].kill()
    for _ in range(5):
        answer = ask(bed, gateway, stream=stream, prompt="x" * 1000)
        assert answer.status_code == 200
        assert (answer.json()["model"], answer.headers["x-holdfast-model"]) == ("tiny", "tiny")
        assert answer.json()["engine"].startswith("small-")
        assert answer.json()["size"] == 1000


def test_the_stand_in_fails_over_itself(bed: TwoServices) -> None:
    for server in bed.engines.values():
        server.kill()
    bed.spare["us"].kill()
    answer = ask(bed, "us")
    assert (answer.status_code, answer.json()["engine"], answer.headers["x-holdfast-region"]) == (200, "small-eu", "eu")


def test_nobody_chooses_the_stand_in_by_its_name(bed: TwoServices) -> None:
    answer = ask(bed, "us", {"host": "small.default.fallback"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_host")


def test_a_request_for_the_stand_in_itself_is_as_any_other(bed: TwoServices) -> None:
    answer = ask(bed, "edge", model="tiny")
    assert (answer.status_code, answer.json()["model"], "x-holdfast-model" in answer.headers) == (200, "tiny", False)
