"""Follows objects in several regions by watches, and remembers when every change arrived."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kubernetes import client, watch
from kubernetes.config import new_client_from_config

from holdfast.api.names import COMPONENT_LABEL, GROUP, ROUTE_COMPONENT, ROUTE_KEY, VERSION
from holdfast.api.route import Route

from .benchmark import BenchError
from .figures import Event, first

NAMESPACE = "default"
SERVICE, PLAN, ROUTE = "LLMService", "RegionPlan", "ConfigMap"
KINDS = (SERVICE, PLAN, ROUTE)
WATCH_SECONDS = 600

Test = Callable[[Mapping[str, Any]], bool]


class Follower:
    """Watches services, plans and routes in all regions until it is closed."""

    def __init__(self, kubeconfigs: Mapping[str, Path]) -> None:
        self.objects: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {
            (region, kind): {} for region in kubeconfigs for kind in KINDS
        }
        """(region, kind) → name → the object as it is now."""
        self._regions = tuple(kubeconfigs)
        self._events: list[Event] = []
        self._news = threading.Condition()
        self._closed = False
        for region, kubeconfig in kubeconfigs.items():
            for kind in KINDS:
                threading.Thread(target=self._follow, args=(region, kind, kubeconfig), daemon=True).start()

    def close(self) -> None:
        """Take nothing up any more; the threads end with their watches."""
        self._closed = True

    def mark(self) -> float:
        """Forget all changes until now; returns the present moment."""
        with self._news:
            self._events.clear()
            return time.monotonic()

    def moments(
        self, what: str, kind: str, name: str, test: Test, regions: Iterable[str] = (), seconds: float = 60.0
    ) -> dict[str, float]:
        """Region → when, after the mark, the object first passed the test there; waits until it has in all of them."""
        wanted = set(regions or self._regions)
        end = time.monotonic() + seconds
        with self._news:
            while not wanted <= (found := first(self._events, kind, name, test)).keys():
                if not self._news.wait(end - time.monotonic()):
                    missing = ", ".join(sorted(wanted - found.keys()))
                    raise BenchError(f"{what}: not within {seconds:g} s in {missing}.")
        return {region: found[region] for region in wanted}

    def wait(self, what: str, check: Callable[[], bool], seconds: float = 120.0) -> float:
        """Return the moment when the objects pass a check; looks at them after every burst of changes."""
        end = time.monotonic() + seconds
        while True:
            with self._news:
                if check():
                    return time.monotonic()
                self._news.wait(1.0)
            if time.monotonic() > end:
                raise BenchError(f"{what}: not within {seconds:g} s.")
            time.sleep(0.02)

    def versions(self) -> dict[tuple[str, str, str], str]:
        """Which version each object has now."""
        with self._news:
            return {
                (region, kind, name): each["metadata"]["resourceVersion"]
                for (region, kind), found in self.objects.items()
                for name, each in found.items()
            }

    def _follow(self, region: str, kind: str, kubeconfig: Path) -> None:
        with new_client_from_config(str(kubeconfig)) as api:
            while not self._closed:
                try:
                    for event in _stream(api, kind):
                        if self._closed:
                            return
                        self._take(region, kind, event)
                except Exception:  # whatever ends a watch, the next one begins where it can
                    time.sleep(0.2)

    def _take(self, region: str, kind: str, event: Mapping[str, Any]) -> None:
        manifest = event["raw_object"]
        if event["type"] not in ("ADDED", "MODIFIED", "DELETED"):
            return
        name = manifest["metadata"]["name"]
        with self._news:
            if event["type"] == "DELETED":
                self.objects[region, kind].pop(name, None)
            else:
                self.objects[region, kind][name] = manifest
                self._events.append(Event(time.monotonic(), region, kind, name, manifest))
            self._news.notify_all()


def percent_is(region: str, percent: int) -> Test:
    """Whether a route gives a region this part of its share."""

    def test(manifest: Mapping[str, Any]) -> bool:
        route = Route.parse(json.loads(manifest["data"][ROUTE_KEY]))
        return any(each.name == region and each.percent == percent for each in route.regions)

    return test


def _stream(api: client.ApiClient, kind: str) -> Iterator[Mapping[str, Any]]:
    if kind == ROUTE:
        labels = f"{COMPONENT_LABEL}={ROUTE_COMPONENT}"
        yield from watch.Watch().stream(
            client.CoreV1Api(api).list_namespaced_config_map, NAMESPACE,
            label_selector=labels, timeout_seconds=WATCH_SECONDS,
        )  # fmt: skip
    else:
        plural = {SERVICE: "llmservices", PLAN: "regionplans"}[kind]
        yield from watch.Watch().stream(
            client.CustomObjectsApi(api).list_namespaced_custom_object, GROUP, VERSION, NAMESPACE, plural,
            timeout_seconds=WATCH_SECONDS,
        )  # fmt: skip
