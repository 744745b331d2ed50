"""`holdfast region join` against three real API servers: who may read what of whom afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.integration.cli.servers import Clusters, wait_for

from holdfast.__main__ import main
from holdfast.api.names import API_VERSION, EPOCH_ANNOTATION, LEASE, NAMESPACE, OBSERVER_LEASE
from holdfast.api.region import RegionRole
from holdfast.cli import peering
from holdfast.cli.join import Cluster, JoinError, join
from holdfast.cli.server import Forbidden, Server, path

pytestmark = pytest.mark.integration

ADDRESSES = {"us-east": "198.18.0.11", "eu-west": "198.18.0.12", "ap-south": "198.18.0.13"}


def first_time(clusters: Clusters) -> list[Cluster]:
    witness = {"ap-south": RegionRole.WITNESS}
    return [
        replace(each, gateway_address=ADDRESSES[each.name], role=witness.get(each.name)) for each in clusters.to_join()
    ]


@pytest.fixture(scope="module")
def joined(clusters: Clusters) -> Clusters:
    lines: list[str] = []
    steps = join(first_time(clusters), report=lines.append)
    print("\n".join(lines))
    assert {each.action for each in steps} == {"created"}
    return clusters


def test_a_region_without_an_address_is_refused_before_anything_is_written(clusters: Clusters) -> None:
    before = clusters.snapshot()
    if any("/Region/" in key for key in before):
        pytest.skip("the clusters have been joined already")
    with pytest.raises(JoinError, match="us-east: no cluster has a Region us-east yet: give --gateway-address us-east"):
        join(clusters.to_join())
    assert clusters.snapshot() == before


def test_a_dry_run_writes_nothing(clusters: Clusters) -> None:
    before = clusters.snapshot()
    steps = join(first_time(clusters), dry_run=True)
    assert len(steps) == 3 * (3 + 3) + 6 * 5
    assert clusters.snapshot() == before


@pytest.mark.parametrize(("reader", "read"), list(permutations(ADDRESSES, 2)))
def test_every_region_may_read_every_other_one(joined: Clusters, reader: str, read: str) -> None:
    peer = joined.as_peer(reader, read)
    assert peer.list("LLMService") == []
    assert {each["metadata"]["name"] for each in peer.list("Region")} == set(ADDRESSES)
    assert peer.list("RegionPlan") == []


def test_every_cluster_knows_every_region_and_how_to_reach_it(joined: Clusters) -> None:
    for server in joined.servers.values():
        for region in server.list("Region"):
            name = region["metadata"]["name"]
            assert region["spec"]["gateway"]["address"] == ADDRESSES[name]
            assert region["spec"]["role"] == ("Witness" if name == "ap-south" else "Serving")
            assert region["spec"]["kubeconfig"] == {"name": f"holdfast-region-{name}", "key": "kubeconfig"}


def test_a_peer_may_write_plans(joined: Clusters) -> None:
    peer = joined.as_peer("us-east", "eu-west")
    plan = {
        "apiVersion": API_VERSION,
        "kind": "RegionPlan",
        "metadata": {"name": "chat", "namespace": "default"},
        "spec": {
            **{"service": "chat", "region": "eu-west", "epoch": 1, "leader": "us-east", "number": 1, "digest": "d"},
            **{"revision": "r", "image": "i", "replicas": 1, "traffic": []},
        },
    }
    peer.apply(plan, "holdfast")
    changed = peer.merge(path("RegionPlan", "default", "chat"), {"spec": {"epoch": 2}}, "holdfast")
    assert peer.request("PUT", path("RegionPlan", "default", "chat"), body=changed)["spec"]["epoch"] == 2
    peer.delete(path("RegionPlan", "default", "chat"))
    assert peer.list("RegionPlan") == []


def lease(name: str) -> dict[str, Any]:
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": {}}


def test_a_peer_may_write_the_leaders_lease_read_the_observers_and_no_other(joined: Clusters) -> None:
    peer = joined.as_peer("us-east", "eu-west")
    created = peer.request("POST", path("Lease", NAMESPACE), body=lease(LEASE))
    created["metadata"]["annotations"] = {EPOCH_ANNOTATION: "3"}
    peer.request("PUT", path("Lease", NAMESPACE, LEASE), body=created)
    assert peer.get(path("Lease", NAMESPACE, LEASE))["metadata"]["annotations"] == {EPOCH_ANNOTATION: "3"}
    joined.servers["eu-west"].request("POST", path("Lease", NAMESPACE), body=lease("another"))
    joined.servers["eu-west"].request("POST", path("Lease", NAMESPACE), body=lease(OBSERVER_LEASE))
    observer = peer.get(path("Lease", NAMESPACE, OBSERVER_LEASE))
    for call in (
        lambda: peer.request("PUT", path("Lease", NAMESPACE, OBSERVER_LEASE), body=observer),
        lambda: peer.get(path("Lease", NAMESPACE, "another")),
        lambda: peer.request("DELETE", path("Lease", NAMESPACE, LEASE)),
        lambda: peer.list("Lease", NAMESPACE),
        lambda: peer.request("POST", path("Lease", "default"), body=lease(LEASE)),
    ):
        with pytest.raises(Forbidden):
            call()
    joined.servers["eu-west"].delete(path("Lease", NAMESPACE, LEASE))


SERVICE = {
    "apiVersion": API_VERSION,
    "kind": "LLMService",
    "metadata": {"name": "chat", "namespace": "default"},
    "spec": {
        "model": {"name": "m", "source": "file:///m"},
        "engine": {"type": "openvino"},
        "regions": [{"name": "us-east"}],
    },
}
FORBIDDEN: dict[str, Callable[[Server], object]] = {
    "read Secrets": lambda peer: peer.list("Secret", NAMESPACE),
    "read one Secret": lambda peer: peer.get(path("Secret", NAMESPACE, "holdfast-region-us-east")),
    "read Secrets elsewhere": lambda peer: peer.list("Secret", "default"),
    "create a service": lambda peer: peer.request("POST", path("LLMService", "default"), body=SERVICE),
    "change a service": lambda peer: peer.merge(path("LLMService", "default", "chat"), {"spec": {}}, "m"),
    "delete a service": lambda peer: peer.delete(path("LLMService", "default", "chat")),
    "change a service's status": lambda peer: peer.merge(path("LLMService", "default", "chat") + "/status", {}, "m"),
    "drain a region": lambda peer: peer.merge(
        path("Region", name="eu-west"), {"metadata": {"annotations": {"a": "b"}}}, "m"
    ),
    "give itself rights": lambda peer: peer.merge(path("ClusterRole", name=peering.PEER_ROLE), {"rules": []}, "m"),
    "make another token": lambda peer: peer.request("POST", path("Secret", NAMESPACE), body=peering.token("x", 1)),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_peer_may_not(joined: Clusters, what: str) -> None:
    with pytest.raises(Forbidden):
        FORBIDDEN[what](joined.as_peer("us-east", "eu-west"))


def test_joining_again_changes_nothing(joined: Clusters) -> None:
    before = joined.snapshot()
    steps = join(joined.to_join())
    assert {each.action for each in steps} == {"unchanged"}
    assert joined.snapshot() == before
    assert {each.action for each in join(joined.to_join(), dry_run=True)} == {"unchanged"}


def test_what_somebody_else_set_in_a_region_object_stays(joined: Clusters) -> None:
    server = joined.servers["us-east"]
    url = path("Region", name="eu-west")
    server.merge(
        url, {"spec": {"gateway": {"address": "eu.example.com", "peerPort": 9081}, "preference": 7}}, "kubectl"
    )
    join(joined.to_join())
    spec = server.get(url)["spec"]
    assert spec["gateway"] == {"address": "eu.example.com", "port": 8080, "peerPort": 9081}
    assert spec["preference"] == 7
    join([replace(each, gateway_address=ADDRESSES[each.name]) for each in joined.to_join()])
    spec = server.get(url)["spec"]
    assert spec["gateway"] == {"address": "198.18.0.12", "port": 8080, "peerPort": 9081}


def test_rotation_issues_new_tokens_and_ends_the_old_ones(joined: Clusters) -> None:
    old = joined.as_peer("us-east", "eu-west")
    lines: list[str] = []
    join(joined.to_join(), rotate=True, report=lines.append)
    print("\n".join(lines))
    new = joined.as_peer("us-east", "eu-west")
    assert new.list("LLMService") == []

    def ended() -> bool:
        try:
            old.list("LLMService")
        except Forbidden:
            return True
        return False

    wait_for("the end of the old token", ended)
    labels = f"{peering.PEER_LABEL}=us-east"
    names = [each["metadata"]["name"] for each in joined.servers["eu-west"].list("Secret", NAMESPACE, labels)]
    assert names == ["holdfast-peer-us-east-token-2"]


def test_one_cluster_under_two_names_is_refused(joined: Clusters) -> None:
    [first, *_] = joined.to_join()
    with pytest.raises(JoinError, match="us-east and eu-west are the same cluster"):
        join([first, replace(first, name="eu-west")])


def test_each_cluster_that_cannot_be_used_is_named(joined: Clusters, tmp_path: Path) -> None:
    [first, second, _] = joined.to_join()
    text = second.kubeconfig.read_text().replace(":6443", ":6444")
    dead = tmp_path / "dead"
    dead.write_text(text)
    broken = tmp_path / "broken"
    broken.write_text("clusters: 7")
    with pytest.raises(JoinError) as caught:
        join([first, replace(second, kubeconfig=dead), Cluster("ap-south", broken)])
    [one, two] = str(caught.value).splitlines()
    assert one.startswith("eu-west: no answer from https://198.1")
    assert "onnection refused" in one
    assert two.startswith(f"ap-south: {broken} is not a usable kubeconfig: ")
    with pytest.raises(JoinError, match=r"ap-south: there is no file /nowhere\."):
        join([first, Cluster("ap-south", Path("/nowhere"))])


def test_the_command_says_what_it_did_and_prints_json(joined: Clusters) -> None:
    files = {name: str(region.kubeconfig) for name, region in joined.regions.items()}
    command = ["region", "join", "--region=us-east", f"--kubeconfig={files['us-east']}"]
    command += [f"--peer={name}={files[name]}" for name in ("eu-west", "ap-south")]
    result = CliRunner().invoke(main, [*command, "-o", "json"])
    assert result.exit_code == 0, result.output
    assert {each["action"] for each in json.loads(result.stdout)["steps"]} == {"unchanged"}
    result = CliRunner().invoke(main, [*command, "--dry-run"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "Nothing was written."
    assert f"us-east reads eu-west at {joined.servers['eu-west'].host}: 5 unchanged" in result.stdout
