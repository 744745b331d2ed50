"""A complete and current copy of some objects of one API server: list, then watch, then list again.

The copy is replaced as a whole by each list and changed by watch events in between. While the server cannot
be reached it stays as it was, marked unreachable. Every request carries time-outs of server and client, as
watches can die without a word; a new list every few minutes heals whatever a watch may have missed. Operators mirror
their peers with it and gateways their routes and engines.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

log = logging.getLogger(__name__)

SHARED_LENGTH = 100
"""Characters of texts that are worth a look whether they are there already."""

KubernetesObject = Mapping[str, Any]

Request = Callable[..., Awaitable[Any]]
"""A list call of the client that returns the raw HTTP response, such as
`CoreV1Api.list_pod_for_all_namespaces_without_preload_content`."""

FAILURES = (ApiException, aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class Pace:
    """Times in seconds."""

    list_timeout: float = 10.0
    watch: float = 30.0
    """How long the server keeps one watch open."""
    watch_grace: float = 10.0
    """How much longer the client waits before it takes a watch for dead."""
    relist: float = 300.0
    retry_first: float = 0.2
    retry_most: float = 10.0


class Mirror:
    """A copy of the objects that one list call with one selector returns; sets `changed` when it differs."""

    def __init__(
        self, name: str, request: Request, selector: str, changed: asyncio.Event, pace: Pace | None = None
    ) -> None:
        self.name = name
        self.objects: dict[str, KubernetesObject] = {}
        self.complete = False
        """Whether there has been a complete list."""
        self.reachable = False
        self.heard_at: float | None = None
        """`time.monotonic()` of the last proof that the copy is current."""
        self.trouble = ""
        """Why it cannot be read now; empty while it can."""
        self.touched: set[str] = set()
        """Objects that changed; whoever follows single ones takes them out."""
        self._seen = 0
        """The resource version up to which everything that happened is in the copy."""
        self._request = request
        self._selector = selector
        self._changed = changed
        self._pace = pace or Pace()

    def remember(self, thing: KubernetesObject) -> None:
        """Take up the answer to an own write before the watch brings it.

        Not if the watch has brought that or more already: then the object may have changed again, or be gone.
        """
        if version_of(thing) > self._seen:
            self.objects[identity(thing)] = lean(thing)

    async def run(self) -> None:
        """Keeps the copy current until cancelled."""
        failures = 0
        while True:
            try:
                version = await self._list()
                failures = 0
                await self._follow(version)
            except FAILURES as error:
                gone = isinstance(error, ApiException) and error.status == 410
                if not gone:
                    failures += 1
                    self._lost(error, failures)
                    await asyncio.sleep(self._pause(failures))

    def _pause(self, failures: int) -> float:
        pause = self._pace.retry_first * 2.0 ** min(failures - 1, 16)
        return min(self._pace.retry_most, pause) * random.uniform(0.5, 1.0)

    def _lost(self, error: Exception, failures: int) -> None:
        if failures == 1:
            log.warning("%s cannot be read, the last state stays: %s", self.name, one_line(error) or type(error))
        self.trouble = one_line(error) or type(error).__name__
        if self.reachable or failures == 1:
            self.reachable = False
            self._changed.set()

    def _heard(self) -> None:
        self.heard_at = time.monotonic()
        self.trouble = ""
        if not self.reachable:
            self.reachable = True
            self._changed.set()

    async def _list(self) -> str:
        response = await self._request(label_selector=self._selector, _request_timeout=self._pace.list_timeout)
        async with response:
            check(response.status, response.reason)
            body = json.loads(await response.read())
        objects = {identity(item): lean(item) for item in body["items"]}
        version = str(body["metadata"]["resourceVersion"])
        self._seen = _number(version)
        if not self.complete or objects != self.objects:
            before = self.objects
            self.touched |= {each for each in {*before, *objects} if before.get(each) != objects.get(each)}
            self.objects, self.complete = objects, True
            self._changed.set()
        self._heard()
        return version

    async def _follow(self, version: str) -> None:
        until = time.monotonic() + self._pace.relist * random.uniform(0.8, 1.0)
        while time.monotonic() < until:
            version = await self._watch_once(version)

    async def _watch_once(self, version: str) -> str:
        response = await self._request(
            label_selector=self._selector,
            watch=True,
            resource_version=version,
            allow_watch_bookmarks=True,
            timeout_seconds=int(self._pace.watch),
            _request_timeout=self._pace.watch + self._pace.watch_grace,
        )
        async with response:
            check(response.status, response.reason)
            async for line in response.content:
                event = json.loads(line)
                version = self._apply(event["type"], event["object"])
                self._heard()
        self._heard()
        return version

    def _apply(self, kind: str, thing: KubernetesObject) -> str:
        if kind == "ERROR":
            raise ApiException(status=thing.get("code"), reason=thing.get("message"))
        if kind != "BOOKMARK":
            name = identity(thing)
            self.touched.add(name)
            if kind == "DELETED":
                self.objects.pop(name, None)
            elif name not in self.objects or version_of(self.objects[name]) <= version_of(thing):
                self.objects[name] = lean(thing)  # else an own write that came later is known already
            self._changed.set()
        version = str(thing["metadata"]["resourceVersion"])
        self._seen = max(self._seen, _number(version))
        return version


def lean(thing: KubernetesObject) -> KubernetesObject:
    """An object without managedFields, which are half of it and never looked at, and with shared texts.

    Every parsed object has its own copy of each field's name; of thousands of objects those are most of the memory.
    """
    meta = {key: value for key, value in thing["metadata"].items() if key != "managedFields"}
    found: KubernetesObject = _shared({**thing, "metadata": meta})
    return found


def _shared(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {sys.intern(key) if type(key) is str else key: _shared(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_shared(each) for each in value]
    return sys.intern(value) if type(value) is str and len(value) <= SHARED_LENGTH else value


def version_of(thing: KubernetesObject) -> int:
    """Resource versions are opaque by contract, but count up in every API server there is; 0 if one does not."""
    return _number(str(thing["metadata"].get("resourceVersion", "")))


def _number(version: str) -> int:
    return int(version) if version.isdigit() else 0


def check(status: int, reason: str | None) -> None:
    """Raises ApiException unless the server agreed."""
    if status != 200:
        raise ApiException(status=status, reason=reason)


def identity(thing: KubernetesObject) -> str:
    """`namespace/name` of an object, or its name alone where its kind has no namespaces."""
    meta = thing["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else str(meta["name"])


def one_line(error: Exception) -> str:
    """An error's text without line breaks, for logs."""
    return " ".join(str(error).split())
