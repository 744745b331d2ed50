"""Regions that cannot be worked with are told apart, and disturb nobody."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml
from tests.integration.fleet.world import World, wait_for

from holdfast.api import names
from holdfast.cli import peering
from holdfast.cli.server import path

REACHED = ("us-east", "eu-west")
"""Where plans arrive, whoever leads, while `us-east` cannot reach `ap-south`."""

SECRET = path("Secret", names.NAMESPACE, peering.secret_name("ap-south"))


@contextmanager
def kubeconfig(world: World, content: str | None) -> Iterator[None]:
    """The Secret with which `us-east` reaches `ap-south`, for a while."""
    server = world.servers["us-east"]
    before = server.get(SECRET)["data"]["kubeconfig"]
    encoded = base64.b64encode(content.encode()).decode() if content is not None else None
    server.merge(SECRET, {"data": {"kubeconfig": encoded}}, "test-user")
    try:
        yield
    finally:
        server.merge(SECRET, {"data": {"kubeconfig": before}}, "test-user")
        wait_for("reached again", lambda: reason(world) == "PeerReached")


def reason(world: World) -> str:
    return str(world.region_condition("us-east", "ap-south").get("reason"))


def stored(world: World, region: str = "ap-south") -> dict[str, Any]:
    secret = world.servers["us-east"].get(path("Secret", names.NAMESPACE, peering.secret_name(region)))
    found: dict[str, Any] = yaml.safe_load(base64.b64decode(secret["data"]["kubeconfig"]))
    return found


def with_server(content: dict[str, Any], url: str) -> str:
    content["clusters"][0]["cluster"] = {"server": url}
    return yaml.safe_dump(content)


def with_token(content: dict[str, Any], token: str) -> str:
    content["users"][0]["user"] = {"token": token}
    return yaml.safe_dump(content)


@contextmanager
def babbler() -> Iterator[str]:
    """A server that answers every request with the same nonsense; its URL."""
    listening = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        while True:
            try:
                one, _ = listening.accept()
            except OSError:
                return
            with one:
                one.recv(65536)
                one.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")

    threading.Thread(target=talk, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.close()


@contextmanager
def silence() -> Iterator[str]:
    """A server that accepts connections and never answers; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_regions_that_are_joined_reach_each_other(world: World) -> None:
    for at in world.regions:
        for of in world.regions:
            wait_for(f"{of} from {at}", lambda a=at, o=of: world.region_condition(a, o).get("reason") == "PeerReached")


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "KubeconfigMissing"), ("not: [yaml", "KubeconfigInvalid"), ("{}", "KubeconfigInvalid")],
)
def test_a_kubeconfig_that_is_none_is_told(world: World, content: str | None, expected: str) -> None:
    with kubeconfig(world, content):
        wait_for(expected, lambda: reason(world) == expected)


def test_a_kubeconfig_that_has_expired_is_told(world: World) -> None:
    with kubeconfig(world, with_token(stored(world), "outdated")):
        wait_for("the refusal", lambda: reason(world) == "PeerRefuses")


def test_one_cluster_under_two_names_counts_once(world: World) -> None:
    with kubeconfig(world, yaml.safe_dump(stored(world, "eu-west"))):
        wait_for("the twin", lambda: reason(world) == "SameCluster")


def test_a_peer_that_babbles_disturbs_nobody(world: World) -> None:
    with babbler() as url, kubeconfig(world, with_server(stored(world), url)):
        wait_for("the condition", lambda: reason(world) == "PeerUnintelligible")
        world.apply("us-east", "beside")
        world.wait_planned("beside", only=REACHED)


def test_a_peer_that_never_answers_disturbs_nobody(world: World) -> None:
    with silence() as url, kubeconfig(world, with_server(stored(world), url)):
        wait_for("the condition", lambda: reason(world) == "PeerUnreachable")
        world.apply("us-east", "despite")
        world.wait_planned("despite", only=REACHED)


def test_a_new_kubeconfig_is_taken_up_without_a_restart(world: World) -> None:
    before = world.operators["us-east"].process
    with kubeconfig(world, with_token(stored(world), "outdated")):
        wait_for("the refusal", lambda: reason(world) == "PeerRefuses")
    assert world.operators["us-east"].process is before
    world.apply("us-east", "rotated")
    world.wait_planned("rotated")
