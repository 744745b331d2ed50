"""One API server as a command uses it: plain JSON objects, one sentence for every error.

The synchronous official client is used beneath its typed models, so that one set of calls serves every kind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import urllib3
import yaml
from kubernetes import client as kube
from kubernetes import config as kube_config

from holdfast.api.names import API_VERSION
from holdfast.errors import ClusterError, ConfigError, Conflict, NotFound, Rejected, Unreachable

TIMEOUT_SECONDS = (5.0, 20.0)
"""Longest time to connect, and to wait for an answer."""

Manifest = dict[str, Any]


class Forbidden(Rejected):
    """The user may not do this (HTTP 401, 403)."""


class Resource(NamedTuple):
    """Where a kind is found."""

    api_version: str
    plural: str
    namespaced: bool = True


RESOURCES = {
    "ClusterRole": Resource("rbac.authorization.k8s.io/v1", "clusterroles", False),
    "ClusterRoleBinding": Resource("rbac.authorization.k8s.io/v1", "clusterrolebindings", False),
    "Event": Resource("v1", "events"),
    "LLMService": Resource(API_VERSION, "llmservices"),
    "Lease": Resource("coordination.k8s.io/v1", "leases"),
    "Namespace": Resource("v1", "namespaces", False),
    "Region": Resource(API_VERSION, "regions", False),
    "RegionPlan": Resource(API_VERSION, "regionplans"),
    "Role": Resource("rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": Resource("rbac.authorization.k8s.io/v1", "rolebindings"),
    "Secret": Resource("v1", "secrets"),
    "ServiceAccount": Resource("v1", "serviceaccounts"),
}
"""Every kind that the commands read or write."""

_IN_SECRETS = {
    "cluster": {"server", "certificate-authority-data", "insecure-skip-tls-verify", "tls-server-name"},
    "user": {"token", "client-certificate-data", "client-key-data"},
}
"""What a kubeconfig from a Secret may say: nothing that reads files or runs programs on the user's machine."""


def path(kind: str, namespace: str = "", name: str = "") -> str:
    """URL path of one object, or of all of a kind where `name` (and perhaps `namespace`) is empty."""
    resource = RESOURCES[kind]
    root = f"/apis/{resource.api_version}" if "/" in resource.api_version else f"/api/{resource.api_version}"
    scope = f"/namespaces/{namespace}" if namespace and resource.namespaced else ""
    return f"{root}{scope}/{resource.plural}" + (f"/{name}" if name else "")


class Server:
    """One API server. Every error is a ClusterError whose sentence begins with `name`."""

    def __init__(self, name: str, configuration: kube.Configuration) -> None:
        self.name = name
        self.configuration = configuration
        configuration.retries = False  # a dead server is to be named at once
        self._api = kube.ApiClient(configuration)

    @classmethod
    def open(cls, name: str, kubeconfig: Path | None = None, context: str | None = None) -> Server:
        """By a kubeconfig file, else by the user's own, else as the Pod's ServiceAccount. Raises ConfigError."""
        configuration = kube.Configuration()
        if kubeconfig and not kubeconfig.is_file():
            raise ConfigError(f"{name}: there is no file {kubeconfig}.")
        try:
            if kubeconfig is None and context is None and not _default_exists() and _in_cluster():
                kube_config.load_incluster_config(client_configuration=configuration)
            else:
                file = str(kubeconfig) if kubeconfig else None
                kube_config.load_kube_config(file, context=context, client_configuration=configuration)
        except (kube_config.ConfigException, yaml.YAMLError, OSError, TypeError) as error:
            where = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
            raise ConfigError(f"{name}: {where} is not a usable kubeconfig: {_first_line(error)}") from error
        return cls(name, configuration)

    @classmethod
    def from_secret(cls, name: str, document: str) -> Server:
        """By the text of a kubeconfig that came from a cluster. Raises ConfigError."""
        configuration = kube.Configuration()
        try:
            parsed = yaml.safe_load(document)
            for part, allowed in _IN_SECRETS.items():
                for each in parsed[f"{part}s"]:
                    if more := set(each[part]) - allowed:
                        raise ConfigError(f"{name}: its kubeconfig has {', '.join(sorted(more))}, which is not used.")
            kube_config.load_kube_config_from_dict(parsed, client_configuration=configuration)
        except (kube_config.ConfigException, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{name}: its kubeconfig cannot be read: {_first_line(error)}") from error
        return cls(name, configuration)

    @property
    def host(self) -> str:
        """URL of the API server."""
        return str(self.configuration.host)

    def close(self) -> None:
        """Release the connections."""
        self._api.rest_client.close()

    def get(self, url: str) -> Manifest:
        """One object, or a list as the server wraps it."""
        return self.request("GET", url)

    def find(self, url: str) -> Manifest | None:
        """The object, or None where it does not exist."""
        try:
            return self.get(url)
        except NotFound:
            return None

    def list(self, kind: str, namespace: str = "", labels: str = "") -> list[Manifest]:
        """All objects of a kind, in one namespace or everywhere. Raises NotFound where the kind is not installed."""
        query = {"labelSelector": labels} if labels else {}
        answer = self.request("GET", path(kind, namespace), query)
        return [{"kind": kind, "apiVersion": RESOURCES[kind].api_version, **each} for each in answer["items"]]

    def apply(self, manifest: Mapping[str, Any], manager: str) -> Manifest:
        """Server-side apply; returns the object as stored. Takes fields over from other managers."""
        meta = manifest["metadata"]
        url = path(manifest["kind"], meta.get("namespace", ""), meta["name"])
        query = {"fieldManager": manager, "force": "true"}
        return self.request("PATCH", url, query, manifest, "application/apply-patch+yaml")

    def merge(self, url: str, patch: Mapping[str, Any], manager: str) -> Manifest:
        """Merge-patch; returns the object as stored."""
        return self.request("PATCH", url, {"fieldManager": manager}, patch, "application/merge-patch+json")

    def delete(self, url: str) -> None:
        """Delete one object; it is no error if it is gone already."""
        try:
            self.request("DELETE", url)
        except NotFound:
            return

    def request(
        self,
        method: str,
        url: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        """One request; the answer's JSON object. Raises a ClusterError."""
        try:
            prepared = self._api.param_serialize(
                method,
                url,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = self._api.call_api(*prepared, _request_timeout=TIMEOUT_SECONDS)
            content = response.read()
        except (urllib3.exceptions.HTTPError, kube.ApiException, OSError) as error:
            raise Unreachable(f"{self.name}: no answer from {self.host}: {_cause(error)}") from error
        try:
            answer = json.loads(content)
        except ValueError:
            answer = {"message": content[:200].decode(errors="replace")}
        if response.status >= 400 or not isinstance(answer, dict):
            said = answer.get("message") if isinstance(answer, dict) else None
            message = f"{self.name}: {said or response.reason or 'the answer is no object'} (HTTP {response.status})"
            raise _error(response.status)(message)
        return answer


def current_namespace(kubeconfig: Path | None = None, context: str | None = None) -> str:
    """The namespace of the kubeconfig's context; `default` where it names none."""
    try:
        contexts, active = kube_config.list_kube_config_contexts(str(kubeconfig) if kubeconfig else None)
    except (kube_config.ConfigException, OSError, TypeError):
        return "default"
    found = next((each for each in contexts if each["name"] == context), active)
    return str(found["context"].get("namespace") or "default")


def _error(status: int) -> type[ClusterError]:
    if status in (401, 403):
        return Forbidden
    if status == 404:
        return NotFound
    if status == 409:
        return Conflict
    return Unreachable if status == 429 or status >= 500 or status < 400 else Rejected


def _cause(error: Exception) -> str:
    """The end of urllib3's sentences, which begin with the connection's Python object."""
    return _first_line(error).rpartition("new connection: ")[2].rpartition("): ")[2]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".") + "."


def _default_exists() -> bool:
    files = os.environ.get("KUBECONFIG", "~/.kube/config").split(os.pathsep)
    return any(Path(each).expanduser().is_file() for each in files if each)


def _in_cluster() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ
