"""The API servers an agent reads: its own region's, or for an edge those of several regions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from kubernetes.aio import client, config

from holdfast.mirror import Mirror, Pace
from holdfast_gateway.issuers import ISSUER_SELECTOR
from holdfast_gateway.observe import ENGINE_SELECTOR, ROUTE_SELECTOR
from holdfast_gateway.options import Auth, Options, Role
from holdfast_gateway.tenants import TENANT_SELECTOR

IN_CLUSTER = "in-cluster"


@dataclass(frozen=True)
class Source:
    """One API server."""

    name: str
    """Its kubeconfig's path, or `in-cluster`."""
    routes: Mirror
    engines: Mirror | None
    """None at an edge, which has no engines."""
    tenants: Mirror | None = None
    """None where everybody may ask, as are the issuers."""
    issuers: Mirror | None = None

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        """All that is read from it."""
        every = (self.routes, self.engines, self.tenants, self.issuers)
        return tuple(mirror for mirror in every if mirror is not None)

    @property
    def complete(self) -> bool:
        """Whether everything has been read at least once."""
        return all(mirror.complete for mirror in self.mirrors)

    @property
    def reachable(self) -> bool:
        """Whether everything is being followed now."""
        return all(mirror.reachable for mirror in self.mirrors)

    def age(self) -> float | None:
        """Seconds since the oldest copy was last known to be current; None before the first."""
        heard = [mirror.heard_at for mirror in self.mirrors]
        return None if None in heard else time.monotonic() - min(at for at in heard if at is not None)


async def api_client(name: str) -> client.ApiClient:
    """A client for an API server. Raises ConfigException or OSError if there is no usable configuration."""
    settings = client.Configuration()
    if name == IN_CLUSTER:
        config.load_incluster_config(client_configuration=settings)
    else:
        load = config.load_kube_config(config_file=name, client_configuration=settings)
        await load
    return client.ApiClient(configuration=settings)


def source(
    name: str, api: client.CoreV1Api, options: Options, changed: asyncio.Event, pace: Pace | None = None
) -> Source:
    """What a gateway's agent reads from one API server."""
    list_routes = api.list_config_map_for_all_namespaces_without_preload_content
    list_pods = api.list_pod_for_all_namespaces_without_preload_content
    list_secrets = partial(api.list_namespaced_secret_without_preload_content, options.tenant_namespace)
    routes = Mirror(f"routes of {name}", list_routes, ROUTE_SELECTOR, changed, pace)
    engines = Mirror(f"engines of {name}", list_pods, ENGINE_SELECTOR, changed, pace)
    tenants = Mirror(f"tenants of {name}", list_secrets, TENANT_SELECTOR, changed, pace)
    issuers = Mirror(f"issuers of {name}", list_secrets, ISSUER_SELECTOR, changed, pace)
    regional, guarded = options.role is Role.REGIONAL, options.auth is Auth.REQUIRED
    return Source(
        name, routes, engines if regional else None, tenants if guarded else None, issuers if guarded else None
    )


def names_for(role: Role, kubeconfigs: Sequence[str]) -> tuple[str, ...]:
    """Which API servers to read. Raises ValueError if a regional gateway is given several."""
    if role is Role.REGIONAL and len(kubeconfigs) > 1:
        raise ValueError("a regional gateway reads its own region's API server only: give one kubeconfig at most")
    return tuple(kubeconfigs) or (IN_CLUSTER,)
