"""The clusters as the tests use them."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from holdfast.api.names import NAMESPACE
from holdfast.cli import peering
from holdfast.cli.join import Cluster
from holdfast.cli.server import Server, path
from holdfast.errors import ClusterError
from holdfast_testbed.testbed import Region, Testbed


def wait_for(what: str, check: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Polls until `check` gives something true; errors of the API server count as "not yet"."""
    until = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < until:
        try:
            if found := check():
                return found
        except ClusterError as error:
            last = error
        time.sleep(0.1)
    pytest.fail(f"{what} did not happen within {seconds:g} s; last error: {last}")


@dataclass
class Clusters:
    """Three clusters, by the names of their regions."""

    bed: Testbed
    regions: dict[str, Region]
    servers: dict[str, Server]

    def to_join(self, **changes: Any) -> list[Cluster]:
        """All of them as `join` takes them."""
        return [Cluster(each.name, each.kubeconfig, **changes) for each in self.regions.values()]

    def stored_kubeconfig(self, reader: str, read: str) -> str:
        """The kubeconfig that one cluster keeps for another."""
        secret = self.servers[reader].get(path("Secret", NAMESPACE, peering.secret_name(read)))
        return base64.b64decode(secret["data"]["kubeconfig"]).decode()

    def as_peer(self, reader: str, read: str) -> Server:
        """The API server of `read`, as the operator of `reader` sees it."""
        return Server.from_secret(read, self.stored_kubeconfig(reader, read))

    def snapshot(self) -> dict[str, str]:
        """Resource version of everything that joining writes."""
        kinds = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount", "Secret")
        label = f"app.kubernetes.io/managed-by={peering.MANAGER}"
        return {
            f"{name}/{kind}/{each['metadata']['name']}": each["metadata"]["resourceVersion"]
            for name, server in self.servers.items()
            for kind, labels in (*((kind, label) for kind in kinds), ("Region", ""))
            for each in server.list(kind, labels=labels)
        }
