"""A gateway that knows more services than a user has inotify instances, and what Envoy is served: real Envoys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from tests.integration.gateway.bed import Bed, Gateway, status_of, wait_for

from holdfast.api.route import Route
from holdfast_gateway import files
from holdfast_gateway.render.files import service_file
from holdfast_gateway.state import Snapshot

pytestmark = pytest.mark.integration
SERVICES = 300


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """One region with a relay, so that a service has as much as it can."""
    made = Bed(tmp_path_factory.mktemp("many"), regions={"us": 1}, relay_flags=())
    with made.running(edge=False):
        yield made


@pytest.fixture
def gateway(bed: Bed) -> Gateway:
    """The gateway, which knows all services, each with the same engine."""
    found = bed.gateways["us"]
    found.apply(many(bed))
    wait_for(lambda: len(listed(found)) == SERVICES + 1, "all services are known")
    return found


def many(bed: Bed, *changed: Route) -> Snapshot:
    first = bed.route("us")
    others = [numbered(bed, number) for number in range(SERVICES)]
    routes = {each.key: each for each in (first, *others, *changed)}
    return Snapshot(tuple(routes[key] for key in sorted(routes)), dict.fromkeys(routes, bed.engine_addresses("us")))


def numbered(bed: Bed, number: int, **fields: Any) -> Route:
    return bed.route("us").model_copy(update={"service": f"s{number:03}", "model": f"org/Model {number:03}"} | fields)


def listed(gateway: Gateway) -> list[str]:
    answer = httpx.get(f"{gateway.url}/v1/models", timeout=10)
    return [each["id"] for each in answer.json()["data"]] if answer.status_code == 200 else []


def ask(gateway: Gateway, model: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{gateway.url}/v1/completions", json={"model": model, "prompt": "x", **fields}, timeout=30)


def answers(gateway: Gateway, model: str) -> bool:
    return ask(gateway, model).status_code == 200


def followed(process: int) -> int:
    """How many inotify instances it has."""
    found = 0
    for each in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found += "inotify" in str(each.readlink())
    return found


def test_all_are_served_and_envoy_follows_a_handful_of_files(bed: Bed, gateway: Gateway) -> None:
    for number in (0, 1, SERVICES // 2, SERVICES - 1):
        model = f"org/Model {number:03}"
        wait_for(lambda model=model: answers(gateway, model), "its engine is known")
        assert ask(gateway, model).json()["model"] == model
        assert httpx.get(f"{gateway.url}/v1/models/{quote(model)}", timeout=10).json()["id"] == model
        assert httpx.get(f"{gateway.url}/v1/models/{quote(model, safe='')}", timeout=10).json()["id"] == model
        assert httpx.get(f"{gateway.url}/v1/models/{quote(model)}x", timeout=10).status_code == 404
        wait_for(
            lambda number=number: status_of(f"{gateway.peer_url}/ready/default/s{number:03}") == 200, "it is ready"
        )
    assert status_of(f"{gateway.peer_url}/ready/default/nobody") == 503
    assert ask(gateway, "org/Model 300").status_code == 404
    assert followed(gateway.envoy_pid()) < 16


def test_models_change_hands_in_one_step(bed: Bed, gateway: Gateway) -> None:
    one, other = numbered(bed, 1, model="org/Model 002"), numbered(bed, 2, model="org/Model 001")
    gateway.apply(many(bed, one, other))
    table = gateway.directory / service_file("default/s001")
    assert "org/Model 002" in table.read_text()
    wait_for(lambda: answers(gateway, "org/Model 001") and answers(gateway, "org/Model 002"), "both answer")
    gateway.apply(many(bed, numbered(bed, 7, model="another")))
    wait_for(lambda: answers(gateway, "another"), "the new name is known")
    wait_for(lambda: ask(gateway, "org/Model 007").status_code == 404, "the old one is not")


def test_after_a_death_all_are_served_again(bed: Bed, gateway: Gateway) -> None:
    gateway.kill_envoy()
    wait_for(lambda: status_of(f"{gateway.url}/ready") == 200, "Envoy is back")
    assert len(listed(gateway)) == SERVICES + 1, "no port opens before all is known"
    gateway.server.kill()
    gateway.server.start()
    wait_for(lambda: status_of(f"{gateway.url}/ready") == 200, "Envoy is back with who serves it")
    assert len(listed(gateway)) == SERVICES + 1
    wait_for(lambda: answers(gateway, "org/Model 299"), "the last one answers")


def test_what_envoy_refuses_is_said_in_its_words_and_the_rest_works(bed: Bed, gateway: Gateway) -> None:
    path = gateway.directory / service_file("default/s005")
    document = json.loads(path.read_text())
    for each in document["resources"]:
        if each.get("name") == "service/default/s005":
            each["lb_policy"] = "CLUSTER_PROVIDED"
    good = path.read_text()
    files.replace(path, json.dumps(document))
    wait_for(lambda: "Envoy refuses what it was sent" in gateway.server.log(), "it is said")
    assert "service/default/s005" in gateway.server.log()
    assert answers(gateway, "org/Model 006")
    assert answers(gateway, "org/Model 005"), "the last good one stays"
    files.replace(path, good)
    gateway.apply(replace(many(bed, numbered(bed, 8, model="later"))))
    wait_for(lambda: answers(gateway, "later"), "what comes after is taken")


def test_nobody_else_can_read_what_envoy_is_served(gateway: Gateway) -> None:
    assert (gateway.directory / "xds.sock").stat().st_mode & 0o077 == 0
