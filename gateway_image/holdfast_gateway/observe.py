"""From Kubernetes objects, as JSON, to routes and engines. Pure; suspicious of everything it reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from holdfast.api.names import (
    COMPONENT_LABEL,
    ENGINE_COMPONENT,
    MANAGED_BY_LABEL,
    MANAGER,
    ROUTE_COMPONENT,
    ROUTE_KEY,
    SERVICE_LABEL,
)
from holdfast.api.route import Route
from holdfast.mirror import KubernetesObject, identity, one_line

ROUTE_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGER},{COMPONENT_LABEL}={ROUTE_COMPONENT}"
ENGINE_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGER},{COMPONENT_LABEL}={ENGINE_COMPONENT},{SERVICE_LABEL}"


@dataclass(frozen=True)
class ReadRoutes:
    """The routes of a complete list of ConfigMaps."""

    routes: Mapping[str, Route]
    """ConfigMap (`namespace/name`) → its route, or the last good one if it cannot be read now."""
    problems: tuple[str, ...]
    """A sentence for each ConfigMap that cannot be read."""

    def by_key(self) -> dict[str, Route]:
        """Route key → route."""
        return {route.key: route for _, route in sorted(self.routes.items())}


@dataclass(frozen=True)
class SeenEngines:
    """The engines of a complete list of Pods."""

    addresses: Mapping[str, tuple[str, ...]]
    """Route key → IP addresses, sorted."""
    uids: frozenset[str]
    """The Pods behind them."""


def read_routes(config_maps: Iterable[KubernetesObject], last_good: Mapping[str, Route]) -> ReadRoutes:
    """Reads all routes; one that is broken is reported and its last good version stays."""
    routes: dict[str, Route] = {}
    problems = []
    for config_map in config_maps:
        name = identity(config_map)
        try:
            routes[name] = read_route(config_map)
        except (ValueError, TypeError, AttributeError) as error:
            kept = "its last good version stays" if name in last_good else "it is left out"
            problems.append(f"ConfigMap {name} holds no usable route, {kept}: {one_line(error)}")
            if name in last_good:
                routes[name] = last_good[name]
    return ReadRoutes(routes, tuple(problems))


def read_route(config_map: KubernetesObject) -> Route:
    """The route in a ConfigMap. Raises ValueError, TypeError or AttributeError."""
    text = (config_map.get("data") or {}).get(ROUTE_KEY)
    if text is None:
        raise ValueError(f"it has no entry {ROUTE_KEY}")
    route = Route.parse(json.loads(text))
    if route.namespace != config_map["metadata"]["namespace"]:
        raise ValueError(f"it is about namespace {route.namespace!r}, where its writer may have no say")
    return route


def see_engines(pods: Iterable[KubernetesObject], known: frozenset[str] = frozenset()) -> SeenEngines:
    """Engines that have started; of those in `known` also ones that look unwell now, as only Envoy can tell.

    An engine that still loads its model would count as a failed one, and be asked for its health without
    need. One that has started stays until it is terminating or gone: its node may just not report.
    """
    found: dict[str, set[str]] = {}
    uids = set()
    for pod in pods:
        meta = pod["metadata"]
        service = (meta.get("labels") or {}).get(SERVICE_LABEL)
        address = (pod.get("status") or {}).get("podIP")
        if service and address and not is_over(pod) and (has_started(pod) or meta["uid"] in known):
            found.setdefault(f"{meta['namespace']}/{service}", set()).add(address)
            uids.add(meta["uid"])
    return SeenEngines({key: tuple(sorted(ips)) for key, ips in sorted(found.items())}, frozenset(uids))


def is_over(pod: KubernetesObject) -> bool:
    """Whether a Pod is terminating or has finished."""
    return "deletionTimestamp" in pod["metadata"] or pod["status"].get("phase") in ("Succeeded", "Failed")


def has_started(pod: KubernetesObject) -> bool:
    """Whether all containers have passed their start-up probes, or run if they have none."""
    containers = pod["status"].get("containerStatuses") or []
    return bool(containers) and all(container.get("started") is True for container in containers)
