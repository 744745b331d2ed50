"""More requests than all regions can take: the lowest class is turned away first, and hears when to come again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from tests.integration.gateway.bed import ENGINE_PORT, Bed, wait_for

from holdfast_gateway.options import Auth
from holdfast_gateway.tenants import PriorityClass, Settings, Tenant

pytestmark = pytest.mark.integration

TENANTS = tuple(
    Tenant(name=each, keys=(f"key-of-tenant-{each}",), settings=Settings(priority=each)) for each in PriorityClass
)
FULL = ("--max-num-seqs", "1", "--max-queue", "1", "--priority-ageing", "600")


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory, real: Any) -> Iterator[Bed]:
    """Two regions whose engines each take one request and let one wait."""
    folder = tmp_path_factory.mktemp("shedding")
    made = Bed(
        folder, regions={"us": 1, "eu": 1}, tenants=TENANTS, make_engine=partial(real, flags=FULL),
        relay_flags=(),
        timing={"auth": Auth.REQUIRED},
    )  # fmt: skip
    with made.running():
        yield made


def ask(bed: Bed, priority: PriorityClass, **fields: Any) -> httpx.Response:
    """One completion."""
    body = {"model": "llama", "prompt": "Once", "max_tokens": 2, "ignore_eos": True} | fields
    headers = {"authorization": f"Bearer key-of-tenant-{priority}"}
    return httpx.post(f"{bed.gateways['edge'].url}/v1/completions", json=body, headers=headers, timeout=120)


class Crowd:
    """Long requests of one class, each in a thread of its own."""

    def __init__(self, bed: Bed, priority: PriorityClass) -> None:
        self._bed = bed
        self._priority = priority
        self._threads: list[threading.Thread] = []
        self.answers: list[httpx.Response] = []

    def add(self) -> None:
        """One more."""

        def run() -> None:
            self.answers.append(ask(self._bed, self._priority, max_tokens=300))

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()

    def end(self) -> list[int]:
        """Statuses, when all are answered."""
        for thread in self._threads:
            thread.join()
        return sorted(answer.status_code for answer in self.answers)


def held(bed: Bed) -> int:
    """Requests that run or wait in all engines."""
    found = 0
    for region in bed.regions:
        text = httpx.get(f"http://{bed.engine_addresses(region)[0]}:{ENGINE_PORT}/metrics").text
        lines = [
            line
            for line in text.splitlines()
            if line.startswith(("vllm:num_requests_running", "vllm:num_requests_waiting"))
        ]
        found += sum(int(float(line.rpartition(" ")[2])) for line in lines)
    return found


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_full_house_turns_the_lowest_class_away_and_lets_a_higher_one_in(bed: Bed, stream: bool) -> None:
    wait_for(lambda: held(bed) == 0, "nothing runs")
    crowd = Crowd(bed, PriorityClass.NORMAL)
    for number in range(4):
        crowd.add()
        wait_for(lambda number=number: held(bed) == number + 1, f"request {number + 1} is taken")
    refused = ask(bed, PriorityClass.LOW, stream=stream)
    admitted = ask(bed, PriorityClass.HIGH, stream=stream)
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/json"
    assert refused.json()["error"]["message"]
    assert int(refused.headers["retry-after"]) >= 1
    assert admitted.status_code == 200
    # The high one took the place of one that waited: no other could have been taken.
    assert crowd.end() == [200, 200, 200, 429]
    turned_away = next(each for each in crowd.answers if each.status_code == 429)
    assert int(turned_away.headers["retry-after"]) >= 1
