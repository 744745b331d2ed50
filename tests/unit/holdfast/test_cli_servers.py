"""What is said when a cluster is not as it must be; an in-memory server answers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast.api.names import API_VERSION
from holdfast.cli import join as joining
from holdfast.cli.join import Cluster, JoinError
from holdfast.cli.observe import UNNAMED, NotInstalled, Observer
from holdfast.cli.server import Server, path
from holdfast.errors import NotFound


class Memory:
    """Answers requests from a table of URLs; everything else is not there."""

    def __init__(self, name: str, answers: dict[str, Any], host: str = "https://10.0.0.1:6443") -> None:
        self.name = name
        self.host = host
        self.answers = answers
        self.configuration = SimpleNamespace(ssl_ca_cert=None, tls_server_name=None, verify_ssl=True)

    def get(self, url: str) -> Any:
        if url not in self.answers:
            raise NotFound(f"{self.name}: the server could not find the requested resource (HTTP 404)")
        return self.answers[url]

    def find(self, url: str) -> Any:
        return self.answers.get(url)

    def list(self, kind: str, namespace: str = "", labels: str = "") -> Any:
        return self.get(path(kind, namespace))["items"]

    def close(self) -> None:
        return


def server(name: str, answers: dict[str, Any] | None = None, host: str = "https://10.0.0.1:6443") -> Server:
    return cast(Server, Memory(name, answers or {}, host))


def joined(name: str, uid: str, host: str, **given: Any) -> joining._Joined:
    cluster = Cluster(name, Path("/none"), **{"gateway_address": "g", **given})
    return joining._Joined(cluster, server(name, host=host), uid, {}, has_namespace=True, dry_run=False)


def test_a_cluster_without_the_crds_is_told_how_to_get_them() -> None:
    with pytest.raises(
        JoinError, match=r"eu-west: Holdfast's kinds are not installed \(llmservices, regionplans, regi"
    ):
        joining._read_regions(server("eu-west"))
    older = {f"/apis/{API_VERSION}": {"resources": [{"name": "llmservices"}, {"name": "regions"}]}}
    with pytest.raises(JoinError, match=r"\(regionplans missing\)"):
        joining._read_regions(server("eu-west", older))
    with pytest.raises(NotInstalled, match="cluster: this cluster does not know Holdfast's kinds"):
        Observer(server("cluster")).observe()


@pytest.mark.parametrize("host", ["https://127.0.0.1:41233", "https://localhost:6443", "https://[::1]:6443"])
def test_an_address_that_only_this_machine_reaches_is_refused_unless_another_is_given(host: str) -> None:
    with pytest.raises(JoinError, match=r"eu-west: its kubeconfig names .* give --server eu-west=URL\."):
        joining._check_together([joined("us-east", "1", "https://10.0.0.1"), joined("eu-west", "2", host)])
    reachable = joined("eu-west", "2", host, server="https://10.0.0.2:6443")
    joining._check_together([joined("us-east", "1", "https://10.0.0.1"), reachable])
    assert joining.endpoint_of(reachable.cluster, reachable.server).server == "https://10.0.0.2:6443"


def test_a_cluster_that_no_operator_has_written_to_yet_can_be_shown() -> None:
    empty = {path(kind): {"items": []} for kind in ("Region", "LLMService", "RegionPlan")}
    fleet = Observer(server("cluster", empty)).observe()
    assert fleet.here == UNNAMED
    assert fleet.leader() is None


def test_a_peer_without_a_secret_is_the_own_region_if_it_is_the_only_one() -> None:
    def region(name: str, **status: Any) -> dict[str, Any]:
        spec = {"gateway": {"address": "g"}, "kubeconfig": {"name": f"holdfast-region-{name}"}}
        return {"metadata": {"name": name}, "spec": spec, "status": status}

    kinds = {path(kind): {"items": []} for kind in ("LLMService", "RegionPlan")}
    one = server("cluster", {**kinds, path("Region"): {"items": [region("us-east")]}})
    assert Observer(one).observe().here == "us-east"
    named = [region("us-east", observer="us-east"), region("eu-west", observer="us-east")]
    fleet = Observer(server("cluster", {**kinds, path("Region"): {"items": named}})).observe()
    assert fleet.here == "us-east"
    assert fleet.unread == {
        "eu-west": "eu-west is not read: there is no Secret holdfast-region-eu-west with a kubeconfig."
    }
