"""The objects that let the clusters of the regions read each other: built, neither read nor written, here.

The *reader* is the region whose operator uses the access, the *read* one is the region that grants it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from holdfast.api.names import API_VERSION, GROUP, LEASE, MANAGED_BY_LABEL, NAMESPACE, OBSERVER_LEASE
from holdfast.api.region import RegionRole

MANAGER = "holdfast-join"
"""Field manager of everything that is applied here."""

PEER_LABEL = f"{GROUP}/peer"
"""On what grants access: the reader."""

PEER_ROLE = "holdfast-peer"
"""Name of the ClusterRole and of the Role that readers get."""

MAX_NAME = 40
"""Longest name of a region, in characters."""

KUBECONFIG_KEY = "kubeconfig"

Manifest = dict[str, Any]
_RBAC = "rbac.authorization.k8s.io"

CLUSTER_RULES = (
    {
        "apiGroups": [GROUP],
        "resources": ["llmservices", "regions", "regionplans"],
        "verbs": ["get", "list", "watch"],
    },
    {"apiGroups": [GROUP], "resources": ["regionplans"], "verbs": ["create", "update", "patch", "delete"]},
)
LEASE_RULES = (
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [LEASE],
        "verbs": ["get", "update", "patch"],
    },
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [OBSERVER_LEASE],
        "verbs": ["get"],
    },
)


@dataclass(frozen=True)
class Endpoint:
    """How the other clusters reach an API server, without an identity."""

    server: str
    certificate_authority: bytes | None = None
    """PEM; None: the system's."""
    tls_server_name: str | None = None
    verified: bool = True
    """Whether the server's certificate is checked."""


def usable_name(region: str) -> bool:
    """Whether a region's name can be part of the objects' names and labels."""
    return len(region) <= MAX_NAME and bool(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", region))


def account_name(reader: str) -> str:
    """Name of the ServiceAccount, and of its bindings, that a reader uses."""
    return f"holdfast-peer-{reader}"


def token_name(reader: str, number: int) -> str:
    """Name of the Secret with the reader's token of this number."""
    return f"{account_name(reader)}-token-{number}"


def token_number(name: str) -> int:
    """The number in a token Secret's name; 0 if it has none."""
    number = name.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def secret_name(region: str) -> str:
    """Name of the Secret with the kubeconfig of a region."""
    return f"holdfast-region-{region}"


def namespace() -> Manifest:
    """The namespace of the operator."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def roles() -> list[Manifest]:
    """What every reader may do: the same in every cluster."""
    return [
        _rbac("ClusterRole", PEER_ROLE, rules=list(CLUSTER_RULES)),
        _rbac("Role", PEER_ROLE, NAMESPACE, rules=list(LEASE_RULES)),
    ]


def access(reader: str) -> list[Manifest]:
    """The reader's identity in the region that is read, with its rights."""
    account = account_name(reader)
    subjects = [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]

    def bind(kind: str, role: str, inside: str = "") -> Manifest:
        role_ref = {"apiGroup": _RBAC, "kind": role, "name": PEER_ROLE}
        return _rbac(kind, account, inside, reader, roleRef=role_ref, subjects=subjects)

    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(account, NAMESPACE, reader)},
        bind("ClusterRoleBinding", "ClusterRole"),
        bind("RoleBinding", "Role", NAMESPACE),
    ]


def token(reader: str, number: int) -> Manifest:
    """A Secret that Kubernetes fills with a token of the reader's ServiceAccount."""
    metadata = _metadata(token_name(reader, number), NAMESPACE, reader)
    metadata["annotations"] = {"kubernetes.io/service-account.name": account_name(reader)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "kubernetes.io/service-account-token",
    }


def kubeconfig(region: str, endpoint: Endpoint, reader: str, bearer: str) -> str:
    """The kubeconfig (YAML) with which `reader` reaches `region`."""
    cluster: dict[str, Any] = {"server": endpoint.server}
    if not endpoint.verified:
        cluster["insecure-skip-tls-verify"] = True
    elif endpoint.certificate_authority:
        cluster["certificate-authority-data"] = base64.b64encode(endpoint.certificate_authority).decode()
    if endpoint.tls_server_name:
        cluster["tls-server-name"] = endpoint.tls_server_name
    user = account_name(reader)
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": region, "cluster": cluster}],
        "users": [{"name": user, "user": {"token": bearer}}],
        "contexts": [{"name": region, "context": {"cluster": region, "user": user, "namespace": NAMESPACE}}],
        "current-context": region,
    }
    return str(yaml.safe_dump(document, sort_keys=False))


def kubeconfig_secret(region: str, document: str) -> Manifest:
    """What the reader's cluster keeps to reach `region`."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(secret_name(region), NAMESPACE),
        "type": "Opaque",
        "data": {KUBECONFIG_KEY: base64.b64encode(document.encode()).decode()},
    }


def region_object(
    name: str,
    *,
    address: str | None,
    role: RegionRole | None,
    here: Mapping[str, Any] | None,
    elsewhere: Mapping[str, Any] | None,
) -> Manifest:
    """The `Region` to apply in one cluster.

    `here` is the object as this cluster has it, `elsewhere` as another one has it, from which a cluster without one
    starts. Fields that others manage are left out, so they stay as they are.
    """
    if here is not None:
        spec = managed_spec(here)
    else:
        spec = _copy(elsewhere["spec"]) if elsewhere else {}
        spec.pop("kubeconfig", None)
    if address:
        spec["gateway"] = {**spec.get("gateway", {}), "address": address}
    if role:
        spec["role"] = str(role)
    spec["kubeconfig"] = {"name": secret_name(name), "key": KUBECONFIG_KEY}
    return {"apiVersion": API_VERSION, "kind": "Region", "metadata": {"name": name}, "spec": spec}


def managed_spec(manifest: Mapping[str, Any]) -> Manifest:
    """The part of an object's spec that was applied by this manager: what the next apply must repeat to keep."""
    for entry in manifest["metadata"].get("managedFields", ()):
        if entry.get("manager") == MANAGER and entry.get("operation") == "Apply":
            fields = entry.get("fieldsV1", {}).get("f:spec", {})
            return _pick(manifest.get("spec", {}), fields)
    return {}


def holds(stored: Any, wanted: Any) -> bool:
    """Whether a stored object already says all that is wanted of it."""
    if isinstance(wanted, Mapping):
        return isinstance(stored, Mapping) and all(holds(stored.get(key), each) for key, each in wanted.items())
    if isinstance(wanted, list):
        same = isinstance(stored, list) and len(stored) == len(wanted)
        return same and all(map(holds, stored, wanted))
    return bool(stored == wanted)


def _pick(value: Mapping[str, Any], fields: Mapping[str, Any]) -> Manifest:
    picked = {}
    for key, inner in fields.items():
        name = key.removeprefix("f:")
        if key.startswith("f:") and name in value:
            within = value[name]
            picked[name] = _pick(within, inner) if isinstance(within, Mapping) and inner else within
    return picked


def _copy(value: Any) -> Any:
    return {key: _copy(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _metadata(name: str, inside: str = "", reader: str = "") -> Manifest:
    labels = {MANAGED_BY_LABEL: MANAGER, **({PEER_LABEL: reader} if reader else {})}
    return {"name": name, **({"namespace": inside} if inside else {}), "labels": labels}


def _rbac(kind: str, name: str, inside: str = "", reader: str = "", **rest: Any) -> Manifest:
    return {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": _metadata(name, inside, reader), **rest}
