"""kopf's side of the operator: watches, indexes, and one daemon for each `LLMService`.

kopf keeps the watches alive and holds what they brought in indexes. A daemon sleeps until an event touches its
service, then runs one pass of `reconcile`. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Any

import kopf

from holdfast.adapters import metrics
from holdfast.adapters.cluster import Cluster
from holdfast.adapters.observe import Watched, engine_pod
from holdfast.api import names
from holdfast.api.conditions import Condition
from holdfast.config import Config
from holdfast.domain.observation import Capabilities, EnginePod, Manifest
from holdfast.domain.revision import digest
from holdfast.domain.status import is_bad
from holdfast.errors import ClusterError
from holdfast.fleet import Fleet
from holdfast.mirror import lean
from holdfast.reconcile import Reconciler

log = logging.getLogger(__name__)

CHILDREN = ("deployments.apps", "services.v1", "configmaps.v1", "poddisruptionbudgets.policy")
PODS = "pods.v1"
OURS = {names.MANAGED_BY_LABEL: names.MANAGER}
SETTLE_SECONDS = 0.1
"""Events come in bursts; those of this time after the first are answered by one pass."""

NOT_READY_SECONDS = 0.2
"""How long a daemon waits before it asks again whether the regions are known."""

AT_ONCE = 8
"""Passes at the same time: more would only queue at the API server, in front of the Leases that must be renewed. What
happens meanwhile to a service that waits for its turn is answered by one pass."""

Key = tuple[str, str]
"""Namespace and name of a service."""


class Wakes:
    """One event flag for each service that a daemon keeps."""

    def __init__(self) -> None:
        self._flags: defaultdict[Key, asyncio.Event] = defaultdict(asyncio.Event)

    def flag(self, key: Key) -> asyncio.Event:
        """The flag that a service's daemon waits for."""
        return self._flags[key]

    def one(self, key: Key) -> None:
        """Wake one service's daemon, if there is one."""
        if key in self._flags:
            self._flags[key].set()

    def by_name(self, name: str) -> None:
        """Wake one service's daemon, by `namespace/name`."""
        namespace, _, own = name.partition("/")
        self.one((namespace, own))

    def every(self) -> None:
        """Wake all daemons."""
        for flag in self._flags.values():
            flag.set()

    def forget(self, key: Key) -> None:
        """The service's daemon has ended."""
        self._flags.pop(key, None)


def configure_kopf(settings: kopf.OperatorSettings) -> None:
    """How kopf is to behave; see https://kopf.readthedocs.io/ for each."""
    settings.persistence.finalizer = f"{names.GROUP}/operator"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"kopf.{names.GROUP}")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=f"kopf.{names.GROUP}")
    settings.posting.reporting_component = "holdfast"
    settings.posting.event_name_prefix = "holdfast-"
    settings.networking.request_timeout = 15
    settings.networking.connect_timeout = 5
    settings.watching.connect_timeout = 5
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.background.instant_exit_timeout = 0.5
    selector = f"{names.MANAGED_BY_LABEL}={names.MANAGER}"
    for resource in (*CHILDREN, PODS):
        settings.watching.label_selectors[resource] = selector


def register(registry: kopf.OperatorRegistry, cluster: Cluster, config: Config, capabilities: Capabilities) -> None:
    """Attach every handler to the registry."""
    wakes = Wakes()
    turns = asyncio.Semaphore(AT_ONCE)
    fleet = Fleet(cluster, config, capabilities, wakes.by_name)

    @kopf.on.startup(registry=registry)
    async def begin(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure_kopf(settings)
        fleet.start()

    @kopf.on.cleanup(registry=registry)
    async def end(**_: Any) -> None:
        await fleet.stop()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        # Our own client's way to the API server: kopf's in a Pod needs the cluster's DNS to work.
        return kopf.AiohttpSession(server=cluster.server, aiohttp_session=cluster.open_session())

    _register_indexes(registry, wakes)

    @kopf.daemon(names.GROUP, names.VERSION, "llmservices", id="keep", registry=registry, cancellation_timeout=5)
    async def keep(body: kopf.Body, stopped: kopf.DaemonStopped, **kwargs: Any) -> None:
        key = (body.metadata.namespace or "", body.metadata.name or "")
        reconciler = Reconciler(cluster, config, capabilities, partial(_announce, body))
        flag = wakes.flag(key)
        try:
            while not stopped:
                async with turns:
                    flag.clear()
                    due = await _safe_pass(reconciler, fleet, body, key, kwargs)
                await _wait_for_any(flag, stopped, due)
        finally:
            wakes.forget(key)
            metrics.forget(*key)

    @kopf.on.probe(id="last_reconcile_age_seconds", registry=registry)
    def age(**_: Any) -> float | None:
        last = metrics.LAST._value.get()
        return round(time.time() - last, 1) if last else None


def _register_indexes(registry: kopf.OperatorRegistry, wakes: Wakes) -> None:
    # All of them are coroutines, though none waits: kopf would run functions in threads, one for each event, and
    # flags may be set by the loop's own thread only.
    async def by_service(body: kopf.Body, **_: Any) -> dict[Key, Manifest]:
        return {_service_of(body): _plain(body)}

    async def pod_by_service(body: kopf.Body, **_: Any) -> dict[Key, EnginePod]:
        return {_service_of(body): engine_pod(body)}

    async def by_kind(body: kopf.Body, **_: Any) -> dict[str, Manifest]:
        return {"all": _plain(body)}

    async def wake_one(body: kopf.Body, **_: Any) -> None:
        wakes.one(_service_of(body))

    models: dict[Key, str] = {}
    regions: dict[str, str] = {}

    async def wake_rivals(body: kopf.Body, event: kopf.RawEvent, **_: Any) -> None:
        # A service, and those that use the same model name, or did: the others have no part in it.
        key = (body.metadata.namespace or "", body.metadata.name or "")
        gone = event["type"] == "DELETED"
        before, after = models.pop(key, ""), "" if gone else str(body.spec.get("model", {}).get("name", ""))
        if after:
            models[key] = after
        rivals = [other for other, model in models.items() if model in (before, after)] if before != after else []
        for each in (key, *rivals):
            wakes.one(each)

    async def wake_every(body: kopf.Body, event: kopf.RawEvent, **_: Any) -> None:
        # Only what a Region says matters here, not what an observer sees of it, which changes often.
        name, after = body.metadata.name or "", "" if event["type"] == "DELETED" else digest(dict(body.spec))
        if regions.get(name) != after:
            regions[name] = after
            wakes.every()

    for resource in CHILDREN:
        kopf.index(resource, id="children", labels=OURS, registry=registry)(by_service)
    kopf.index(PODS, id="pods", labels=OURS, registry=registry)(pod_by_service)
    for resource in (*CHILDREN, PODS):
        kopf.on.event(resource, id="wake", labels=OURS, registry=registry)(wake_one)
    for plural, wake in (("regions", wake_every), ("llmservices", wake_rivals)):
        kopf.index(names.GROUP, names.VERSION, plural, id=plural, registry=registry)(by_kind)
        kopf.on.event(names.GROUP, names.VERSION, plural, id="wake", registry=registry)(wake)


def _service_of(body: kopf.Body) -> Key:
    return (body.metadata.namespace or "", body.metadata.labels.get(names.SERVICE_LABEL, ""))


def _plain(body: kopf.Body) -> Manifest:
    return lean(dict(body))


def _name_of(body: kopf.Body) -> str:
    return f"{body.metadata.namespace}/{body.metadata.name}"


async def _safe_pass(reconciler: Reconciler, fleet: Fleet, body: kopf.Body, key: Key, indexes: Any) -> float:
    """A daemon that raises stays dead until the operator restarts, so nothing gets past here."""
    if not fleet.ready:
        return NOT_READY_SECONDS

    def indexed(name: str, at: Any) -> Iterable[Any]:
        return list(indexes[name].get(at, ()))

    try:
        acted = body.status.get("plan", {})
        watched = Watched(
            service=_plain(body),
            children=indexed("children", key),
            pods=indexed("pods", key),
            regions=indexed("regions", "all"),
            services=indexed("llmservices", "all"),
            control=await fleet.control(_name_of(body), acted),
        )
        return await reconciler.reconcile(watched)
    except ClusterError as error:
        log.warning("%s/%s: %s", *key, error)
        return 1.0
    except Exception:
        log.exception("the pass over %s/%s failed; what runs stays as it is", *key)
        metrics.record_reconcile("crashed", 0.0)
        return 30.0


async def _wait_for_any(flag: asyncio.Event, stopped: kopf.DaemonStopped, seconds: float) -> None:
    """Until the flag is set, the daemon is told to stop, or the time is over."""
    waits = [asyncio.ensure_future(flag.wait()), asyncio.ensure_future(stopped.wait())]
    try:
        done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await each
    if waits[0] in done:
        await asyncio.sleep(SETTLE_SECONDS)


def _announce(body: kopf.Body, condition: Condition) -> None:
    """One event on the service for one condition that changed."""
    kind = "Warning" if is_bad(condition) else "Normal"
    kopf.event(
        body,
        type=kind,
        reason=condition.reason,
        message=f"{condition.type}={condition.status}: {condition.message}",
    )
