"""One cluster's API server, through the official asyncio client: server-side apply, delete, status.

Objects are plain JSON, so the client's own transport is used beneath its typed models: the same few calls serve
every kind, whatever version of it the server has.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
from kubernetes.aio import client as kube
from kubernetes.aio import config as kube_config
from pydantic.alias_generators import to_camel

from holdfast.api import names
from holdfast.domain.observation import Capabilities, Manifest, Ref
from holdfast.errors import ClusterError, ConfigError, Conflict, NotFound, Rejected, Unreachable

PLURALS = {
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "Event": "events",
    "LLMService": "llmservices",
    "Lease": "leases",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "Region": "regions",
    "RegionPlan": "regionplans",
    "Service": "services",
}
"""Every kind that is written one by one, with its name in URLs."""

TIMEOUT_SECONDS = 10.0
"""Longest time for one request to an API server."""

LONGEST_EVENT = 4 * 2**20
"""Bytes of one line of a watch: the largest object that etcd takes, twice."""

KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}
"""A silent connection is probed after 5 s and given up after 20 s. Where a system lacks one, its own default holds."""


def collection(api_version: str, plural: str, namespace: str = "") -> str:
    """URL path of all objects of a kind, in one namespace or in all."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


def path(api_version: str, kind: str, namespace: str, name: str) -> str:
    """URL path of one object; `namespace` is empty for kinds that have none."""
    return f"{collection(api_version, PLURALS[kind], namespace)}/{name}"


_OURS = [("fieldManager", names.MANAGER)]


class Cluster:
    """The API server of one region."""

    def __init__(self, api: kube.ApiClient) -> None:
        self._api = api
        self._closed = False

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> Cluster:
        """With a kubeconfig file, or as the Pod's own ServiceAccount, or by the user's default kubeconfig.

        Raises ConfigError if none of them can be used.
        """
        configuration = kube.Configuration()
        try:
            if kubeconfig or not os.environ.get("KUBERNETES_SERVICE_HOST"):
                await kube_config.load_kube_config(kubeconfig, client_configuration=configuration)
            else:
                kube_config.load_incluster_config(client_configuration=configuration)
        except (kube_config.ConfigException, OSError) as error:
            raise ConfigError(f"There is no usable way to reach an API server: {error}") from error
        return cls._with(configuration)

    @classmethod
    async def from_kubeconfig(cls, content: Mapping[str, Any]) -> Cluster:
        """With the content of a kubeconfig file. Raises ConfigError."""
        configuration = kube.Configuration()
        try:
            await kube_config.load_kube_config_from_dict(dict(content), client_configuration=configuration)
            return cls._with(configuration)
        except (kube_config.ConfigException, OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"The kubeconfig cannot be used: {error}") from error

    @classmethod
    def _with(cls, configuration: kube.Configuration) -> Cluster:
        api = kube.ApiClient(configuration)
        api.rest_client.pool_manager = _session(api.rest_client.ssl_context)
        return cls(api)

    async def close(self) -> None:
        """Release the connections."""
        self._closed = True
        await self._api.close()

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self._api.configuration.host)

    def open_session(self) -> aiohttp.ClientSession:
        """A session of its own for another client of the same API server: same trust, identity and connections.

        Every request carries the token that is valid then: those of Pods change within the hour.
        """
        configuration = self._api.configuration

        async def authorize(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            if token := await configuration.get_api_key_with_prefix("BearerToken"):
                request.headers["Authorization"] = token
            return await send(request)

        tls = self._api.rest_client.ssl_context
        return _session(tls, authorize)

    async def apply(self, manifest: Manifest) -> dict[str, Any]:
        """Server-side apply; returns the object as stored. Fields of other managers stay; ours are taken back."""
        ref = Ref.of(manifest)
        url = path(manifest["apiVersion"], ref.kind, ref.namespace, ref.name)
        query = [("fieldManager", names.MANAGER), ("force", "true")]
        return await self.request("PATCH", url, query, manifest, "application/apply-patch+yaml")

    async def delete(self, api_version: str, ref: Ref, uid: str | None = None) -> None:
        """Delete an object and what it owns, only the one with this uid if given; one that is gone is no error."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self.request("DELETE", path(api_version, ref.kind, ref.namespace, ref.name), body=body)
        except NotFound:
            return

    async def get(self, api_version: str, ref: Ref, timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
        """An object as it is now. Raises NotFound."""
        return await self.request("GET", path(api_version, ref.kind, ref.namespace, ref.name), timeout=timeout)

    async def create(self, manifest: Manifest, timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
        """Create an object. Raises Conflict if there is one."""
        ref = Ref.of(manifest)
        url = collection(manifest["apiVersion"], PLURALS[ref.kind], ref.namespace)
        return await self.request("POST", url, _OURS, manifest, timeout=timeout)

    async def replace(self, manifest: Manifest, timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
        """Compare and swap: write an object if it is still at the manifest's resourceVersion. Raises Conflict."""
        ref = Ref.of(manifest)
        url = path(manifest["apiVersion"], ref.kind, ref.namespace, ref.name)
        return await self.request("PUT", url, _OURS, manifest, timeout=timeout)

    def lister(self, url: str, **fixed: str) -> Callable[..., Awaitable[Any]]:
        """A list and watch call for a `Mirror`; `url` is that of a `collection`, `fixed` goes into every query."""

        async def request(_request_timeout: float, label_selector: str = "", **query: Any) -> Any:
            chosen = {"labelSelector": label_selector} if label_selector else {}
            renamed = {to_camel(key): str(value).lower() if value is True else value for key, value in query.items()}
            prepared = await self._api.param_serialize(
                "GET",
                url,
                query_params=list({**fixed, **chosen, **renamed}.items()),
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
            )
            return (await self._api.call_api(*prepared, _request_timeout=_request_timeout)).response

        return request

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
        timeout: float = TIMEOUT_SECONDS,
    ) -> dict[str, Any]:
        """One request; the answer's JSON object. Raises a ClusterError that carries the server's own words."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        if self._closed:
            raise Unreachable(f"{method} {url}: this connection was closed, as there is a newer one")
        try:
            prepared = await self._api.param_serialize(
                method,
                url,
                query_params=list(query),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(*prepared, _request_timeout=timeout)
            content = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            what = str(error) or f"no answer within {timeout:g} s"
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


def _session(tls: ssl.SSLContext, *middlewares: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0, ssl=tls, socket_factory=_probed_socket)
    return aiohttp.ClientSession(
        connector=connector, middlewares=middlewares, trust_env=True, read_bufsize=LONGEST_EVENT
    )


def _probed_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices a machine that died: a watch only listens, so nothing else would for minutes."""
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if option := getattr(socket, name, None):
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


def _error(status: int) -> type[ClusterError]:
    if status == 404:
        return NotFound
    if status == 409:
        return Conflict
    if status == 429 or status >= 500:
        return Unreachable
    return Rejected
