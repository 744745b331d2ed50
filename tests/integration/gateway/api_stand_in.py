"""A small API server for ConfigMaps, Pods and Secrets: lists, watches, and fails in the ways that real ones do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

SECRETS = "/api/v1/namespaces/holdfast-system/secrets"
PATHS = {"/api/v1/configmaps": "ConfigMap", "/api/v1/pods": "Pod", SECRETS: "Secret"}


class ApiStandIn:
    """Holds objects; `url` once started. A label selector chooses Secrets; for the others it is ignored."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in PATHS.values()}
        self.version = 1
        self.lists = 0
        self.broken: frozenset[str] = frozenset()
        """Kinds whose lists and watches are answered 500."""
        self.mute = False
        """Watches stay open but nothing comes."""
        self._events: list[tuple[int, str, str, dict[str, Any]]] = []
        self._oldest = 0
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Opens its port, the same one each time."""
        app = web.Application()
        for path in PATHS:
            app.router.add_get(path, self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def stop(self) -> None:
        """Closes its port and all connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def put(self, kind: str, thing: dict[str, Any]) -> None:
        """Creates or changes an object."""
        await self._record("MODIFIED", kind, thing)
        self.objects[kind][name_of(thing)] = thing

    async def delete(self, kind: str, name: str) -> None:
        """Deletes an object."""
        await self._record("DELETED", kind, self.objects[kind].pop(name))

    async def forget(self) -> None:
        """Compacts its history: watches from before now are answered 410."""
        async with self._changed:
            self.version += 1
            self._oldest = self.version
            self._events.clear()
            self._changed.notify_all()

    async def set_broken(self, *broken: str) -> None:
        """Starts an outage of these kinds, ends that of all others."""
        async with self._changed:
            self.broken = frozenset(broken)
            self._changed.notify_all()

    async def _record(self, event: str, kind: str, thing: dict[str, Any]) -> None:
        async with self._changed:
            self.version += 1
            thing["metadata"]["resourceVersion"] = str(self.version)
            self._events.append((self.version, event, kind, json.loads(json.dumps(thing))))
            self._changed.notify_all()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        kind = PATHS[request.path]
        if kind in self.broken:
            return web.json_response({"kind": "Status", "code": 500}, status=500)
        if request.query.get("watch") not in ("true", "True"):
            self.lists += 1
            items = [each for each in self.objects[kind].values() if wanted(request, each)]
            return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})
        return await self._watch(request, kind)

    async def _watch(self, request: web.Request, kind: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        sent = int(request.query["resourceVersion"])
        loop = asyncio.get_running_loop()
        end = loop.time() + float(request.query["timeoutSeconds"])
        while self.mute or (loop.time() < end and kind not in self.broken):
            if sent < self._oldest:
                gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
                await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
                break
            for version, event, of_kind, thing in self._events:
                if version > sent and of_kind == kind and not self.mute and wanted(request, thing):
                    await response.write(json.dumps({"type": event, "object": thing}).encode() + b"\n")
                    sent = version
            async with self._changed:
                try:
                    async with asyncio.timeout(0.2):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        return response


def wanted(request: web.Request, thing: dict[str, Any]) -> bool:
    """Whether the selector of a request for Secrets, the name of one label, chooses this object."""
    return request.path != SECRETS or request.query["labelSelector"] in thing["metadata"].get("labels", {})


def name_of(thing: dict[str, Any]) -> str:
    """`namespace/name`."""
    return f"{thing['metadata']['namespace']}/{thing['metadata']['name']}"
