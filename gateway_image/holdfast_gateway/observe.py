"""From Kubernetes objects, as JSON, to routes and engines. Pure; suspicious of everything it reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.api.names import (
    COMPONENT_LABEL,
    ENGINE_COMPONENT,
    MANAGED_BY_LABEL,
    MANAGER,
    REVISION_LABEL,
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
    read: Mapping[str, tuple[KubernetesObject, Route]] = field(default_factory=dict)
    """ConfigMap → the object that a good route was read from, and the route."""

    def by_key(self) -> dict[str, Route]:
        """Route key → route."""
        return {route.key: route for _, route in sorted(self.routes.items())}


@dataclass(frozen=True)
class SeenEngines:
    """The engines of a complete list of Pods."""

    addresses: Mapping[str, tuple[str, ...]]
    """Route key → IP addresses of those that take requests, sorted."""
    uids: frozenset[str]
    """The Pods of all that have started, warm ones included."""
    revisions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Route key → IP address → revision, of those whose Pod has the label."""


def read_routes(
    config_maps: Iterable[KubernetesObject], last_good: Mapping[str, Route], before: ReadRoutes | None = None
) -> ReadRoutes:
    """Reads all routes; one that is broken is reported and its last good version stays. What was read before from the
    very same object is not read again."""
    routes: dict[str, Route] = {}
    problems = []
    done = before.read if before else {}
    read: dict[str, tuple[KubernetesObject, Route]] = {}
    for config_map in config_maps:
        name = identity(config_map)
        try:
            known, route = done.get(name, (None, None))
            if route is None or known is not config_map:
                route = read_route(config_map)
            routes[name] = route
            read[name] = config_map, route
        except (ValueError, TypeError, AttributeError) as error:
            kept = "its last good version stays" if name in last_good else "it is left out"
            problems.append(f"ConfigMap {name} holds no usable route, {kept}: {one_line(error)}")
            if name in last_good:
                routes[name] = last_good[name]
    return ReadRoutes(routes, tuple(problems), read)


def read_route(config_map: KubernetesObject) -> Route:
    """The route in a ConfigMap. Raises ValueError, TypeError or AttributeError."""
    text = (config_map.get("data") or {}).get(ROUTE_KEY)
    if text is None:
        raise ValueError(f"it has no entry {ROUTE_KEY}")
    route = Route.parse(json.loads(text))
    if route.namespace != config_map["metadata"]["namespace"]:
        raise ValueError(f"it is about namespace {route.namespace!r}, where its writer may have no say")
    return route


def see_engines(
    pods: Iterable[KubernetesObject],
    known: frozenset[str] = frozenset(),
    routes: Mapping[str, Route] | None = None,
) -> SeenEngines:
    """Engines that have started; of those in `known` also ones that look unwell now, as only Envoy can tell.

    `routes` say by key how many of them take requests, if need be of each revision; the others are warm. Without a
    number all do.

    An engine that still loads its model would count as a failed one, and be asked for its health without
    need. One that has started stays until it is terminating or gone: its node may just not report.
    """
    started: dict[str, list[KubernetesObject]] = {}
    for pod in pods:
        meta = pod["metadata"]
        service = (meta.get("labels") or {}).get(SERVICE_LABEL)
        address = (pod.get("status") or {}).get("podIP")
        if service and address and not is_over(pod) and (has_started(pod) or meta["uid"] in known):
            started.setdefault(f"{meta['namespace']}/{service}", []).append(pod)
    taking = {key: take_requests(engines, (routes or {}).get(key)) for key, engines in sorted(started.items())}
    addresses = {key: tuple(sorted({pod["status"]["podIP"] for pod in engines})) for key, engines in taking.items()}
    revisions = {
        key: {pod["status"]["podIP"]: revision_of(pod) for pod in engines if revision_of(pod)}
        for key, engines in taking.items()
    }
    uids = frozenset(pod["metadata"]["uid"] for engines in started.values() for pod in engines)
    return SeenEngines(addresses, uids, revisions)


def take_requests(engines: Sequence[KubernetesObject], route: Route | None) -> Sequence[KubernetesObject]:
    """The engines that are not warm; of revisions that the route does not mention, all."""
    if route is None or not route.revisions:
        return in_turn(engines, route.routed if route else None)
    routed = {share.name: share.routed for share in route.revisions}
    return [
        pod
        for revision in sorted({revision_of(pod) for pod in engines})
        for pod in in_turn([each for each in engines if revision_of(each) == revision], routed.get(revision))
    ]


def revision_of(pod: KubernetesObject) -> str:
    """The revision that a Pod runs; empty if it does not say."""
    return str((pod["metadata"].get("labels") or {}).get(REVISION_LABEL) or "")


def in_turn(engines: Sequence[KubernetesObject], routed: int | None) -> Sequence[KubernetesObject]:
    """The engines that take requests; every gateway of a region chooses the same, as only the Pods decide.

    They are those that have been ready longest, so that a warm one takes the place of one that is lost, and keeps it
    when that comes back. Where fewer are ready, all are taken: a node may just not report, and which of its engines
    live only Envoy can tell.
    """
    ready = sorted((pod for pod in engines if ready_since(pod)), key=turn)
    return engines if routed is None or len(ready) < routed else ready[:routed]


def turn(pod: KubernetesObject) -> tuple[str, str, str]:
    """Sort key of ready engines: longest ready, then oldest, then by name."""
    meta = pod["metadata"]
    return ready_since(pod), str(meta.get("creationTimestamp")), meta["name"]


def ready_since(pod: KubernetesObject) -> str:
    """When a Pod turned ready, RFC 3339; empty while it is not."""
    conditions = pod["status"].get("conditions") or []
    found = [each for each in conditions if each.get("type") == "Ready" and each.get("status") == "True"]
    return str(found[0].get("lastTransitionTime")) if found else ""


def is_over(pod: KubernetesObject) -> bool:
    """Whether a Pod is terminating or has finished."""
    return "deletionTimestamp" in pod["metadata"] or pod["status"].get("phase") in ("Succeeded", "Failed")


def has_started(pod: KubernetesObject) -> bool:
    """Whether all containers have passed their start-up probes, or run if they have none."""
    containers = pod["status"].get("containerStatuses") or []
    return bool(containers) and all(container.get("started") is True for container in containers)
