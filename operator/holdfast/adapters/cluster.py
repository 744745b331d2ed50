"""One cluster's API server, through the official asyncio client: server-side apply, delete, status.

Objects are plain JSON, so the client's own transport is used beneath its typed models: the same few calls serve
every kind, whatever version of it the server has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio import client as kube
from kubernetes.aio import config as kube_config

from holdfast.api import names
from holdfast.domain.observation import Capabilities, Manifest, Ref
from holdfast.errors import ClusterError, ConfigError, Conflict, NotFound, Rejected, Unreachable

PLURALS = {
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "LLMService": "llmservices",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "Service": "services",
}
"""Every kind that is written, with its name in URLs."""

TIMEOUT_SECONDS = 10.0
"""Longest time for one request to an API server."""


def path(api_version: str, kind: str, namespace: str, name: str) -> str:
    """URL path of one namespaced object."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{root}/namespaces/{namespace}/{PLURALS[kind]}/{name}"


@dataclass(frozen=True)
class Credentials:
    """How to reach and convince the API server; paths are of files."""

    server: str
    authorization: str | None
    """Value of the Authorization header; tokens of Pods change within the hour."""
    ca_path: str | None
    certificate_path: str | None
    private_key_path: str | None
    insecure: bool


class Cluster:
    """The API server of one region."""

    def __init__(self, api: kube.ApiClient) -> None:
        self._api = api

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> Cluster:
        """With a kubeconfig file, or as the Pod's own ServiceAccount, or by the user's default kubeconfig.

        Raises ConfigError if none of them can be used.
        """
        configuration = kube.Configuration()
        try:
            if kubeconfig:
                await kube_config.load_kube_config(kubeconfig, client_configuration=configuration)
            else:
                await kube_config.load_config(client_configuration=configuration)
        except (kube_config.ConfigException, OSError) as error:
            raise ConfigError(f"There is no usable way to reach an API server: {error}") from error
        return cls(kube.ApiClient(configuration))

    async def close(self) -> None:
        """Release the connections."""
        await self._api.close()

    async def credentials(self) -> Credentials:
        """What another client of the same API server needs at this moment."""
        configuration = self._api.configuration
        return Credentials(
            server=configuration.host,
            authorization=await configuration.get_api_key_with_prefix("BearerToken"),
            ca_path=configuration.ssl_ca_cert,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            insecure=not configuration.verify_ssl,
        )

    async def apply(self, manifest: Manifest) -> dict[str, Any]:
        """Server-side apply; returns the object as stored. Fields of other managers stay; ours are taken back."""
        ref = Ref.of(manifest)
        url = path(manifest["apiVersion"], ref.kind, ref.namespace, ref.name)
        query = [("fieldManager", names.MANAGER), ("force", "true")]
        return await self.request("PATCH", url, query, manifest, "application/apply-patch+yaml")

    async def delete(self, api_version: str, ref: Ref) -> None:
        """Delete an object and what it owns; it is no error if it is gone already."""
        try:
            await self.request(
                "DELETE",
                path(api_version, ref.kind, ref.namespace, ref.name),
                body={"propagationPolicy": "Background"},
            )
        except NotFound:
            return

    async def patch_status(self, ref: Ref, status: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the status of one of Holdfast's own objects; returns the object as stored."""
        url = path(names.API_VERSION, ref.kind, ref.namespace, ref.name) + "/status"
        return await self.request("PATCH", url, (), {"status": status}, "application/merge-patch+json")

    async def capabilities(self) -> Capabilities:
        """What this API server can do, as far as decisions depend on it."""
        for version in ("policy/v1", "policy/v1beta1"):
            try:
                listed = await self.request("GET", f"/apis/{version}")
            except NotFound:
                continue
            if any(each["name"] == "poddisruptionbudgets" for each in listed.get("resources", ())):
                return Capabilities(pod_disruption_budget=version)
        return Capabilities(pod_disruption_budget=None)

    async def request(
        self,
        method: str,
        url: str,
        query: list[tuple[str, str]] | tuple[()] = (),
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """One request; the answer's JSON object. Raises a ClusterError that carries the server's own words."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            prepared = await self._api.param_serialize(
                method,
                url,
                query_params=list(query),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(*prepared, _request_timeout=TIMEOUT_SECONDS)
            content = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            what = str(error) or f"no answer within {TIMEOUT_SECONDS:g} s"
            raise Unreachable(f"{method} {url}: {what}") from error
        try:
            answer = json.loads(content)
        except ValueError:
            answer = {"message": content[:200].decode(errors="replace")}
        if response.status >= 400:
            message = answer.get("message") if isinstance(answer, dict) else None
            raise _error(response.status)(f"{method} {url}: {message or response.reason} (HTTP {response.status})")
        if not isinstance(answer, dict):
            raise Unreachable(f"{method} {url}: the answer is not a Kubernetes object")
        return answer


def _error(status: int) -> type[ClusterError]:
    if status == 404:
        return NotFound
    if status == 409:
        return Conflict
    if status == 429 or status >= 500:
        return Unreachable
    return Rejected
