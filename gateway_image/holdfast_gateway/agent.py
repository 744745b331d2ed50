"""The agent: when something changed at an API server, computes Envoy's files anew and writes what differs.

Nothing is written before every list that a decision needs has been read in full once, so a server that
cannot be read never empties a gateway. What was last good is remembered on disk, for the agent's restarts.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.api.route import Route
from holdfast_gateway import files
from holdfast_gateway.access import Access
from holdfast_gateway.memory import recall, remember
from holdfast_gateway.names import Names
from holdfast_gateway.observe import ReadRoutes, SeenEngines, read_routes, see_engines
from holdfast_gateway.options import Options, Role
from holdfast_gateway.render.files import Renderer
from holdfast_gateway.sources import Source
from holdfast_gateway.state import Snapshot, SourceRoutes, agreed_routes, one_service_per_model
from holdfast_gateway.tenants import unenforced
from holdfast_gateway.traffic import Traffic

log = logging.getLogger(__name__)

SETTLE = 0.03
"""Seconds to wait for further changes before computing."""

RETRY = 1.0
"""Seconds to wait after files could not be written."""


class Agent:
    """Keeps the files of one gateway's Envoy in line with its sources."""

    def __init__(self, directory: Path, options: Options, sources: Sequence[Source], changed: asyncio.Event) -> None:
        self.sources = sources
        self.problems: tuple[str, ...] = ()
        """What is wrong with the routes now, a sentence each."""
        self.writes = 0
        self.written_at: float | None = None
        self.snapshot: Snapshot | None = None
        """What the files were last computed from."""
        self.traffic = Traffic(options, lambda: self.snapshot)
        self._directory = directory
        self._folder = files.Folder(directory)
        self._renderer = Renderer(options, str(directory), files.to_text)
        self._options = options
        self._changed = changed
        memory = recall(directory)
        self._last_good: dict[str, Mapping[str, Route]] = dict(memory.routes)
        self._read: dict[str, ReadRoutes] = {}
        self._access = Access(memory)
        self._names = Names(memory.addresses, changed)
        self._started: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for source in self.sources:
                for mirror in source.mirrors:
                    tasks.create_task(mirror.run())
            tasks.create_task(self._names.run())
            if self._options.status_port and self._options.role is Role.REGIONAL:
                tasks.create_task(self.traffic.run())
            tasks.create_task(self._write_changes())

    async def _write_changes(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(SETTLE)
            self._changed.clear()
            snapshot = await self.observe()
            if snapshot is not None:
                self.snapshot = snapshot
                await self._write(snapshot)

    async def observe(self) -> Snapshot | None:
        """The present state; None as long as what is known does not suffice to act on."""
        if not any(source.complete for source in self.sources):
            return None
        problems: list[str] = []
        views = []
        for source in self.sources:
            held = self._last_good.get(source.name, {})
            if source.complete:
                read = read_routes(source.routes.objects.values(), held, self._read.get(source.name))
                self._read[source.name] = read
                problems += read.problems
                self._last_good[source.name] = held = read.routes
            routes = {route.key: route for _, route in sorted(held.items())}
            views.append(SourceRoutes(routes, source.reachable))
        served, conflicts = one_service_per_model(agreed_routes(views).values())
        access = self._access.read(self.sources)
        idle = unenforced(access.tenants, bool(self._options.limits and self._options.ledger))
        self._report([*problems, *(conflict.message for conflict in conflicts), *access.problems, *idle])
        await self._names.want(Snapshot(served).host_names())
        engines = self._engines(served)
        return Snapshot(
            served,
            engines.addresses,
            dict(self._names.addresses),
            access.tenants,
            access.issuers,
            engines.revisions,
        )

    def _engines(self, served: Sequence[Route]) -> SeenEngines:
        pods = [pod for source in self.sources if source.engines for pod in source.engines.objects.values()]
        seen = see_engines(pods, self._started, {route.key: route for route in served})
        self._started = seen.uids
        return seen

    def _report(self, problems: Sequence[str]) -> None:
        for problem in problems:
            if problem not in self.problems:
                log.error("%s", problem)
        self.problems = tuple(problems)

    async def _write(self, snapshot: Snapshot) -> None:
        try:
            changed = self._folder.write(self._renderer.files(snapshot))
            remember(self._directory, self._access.memory(self._last_good, snapshot.addresses))
        except OSError as error:
            log.error("Envoy's files cannot be written, trying again: %s", error)
            await asyncio.sleep(RETRY)
            self._changed.set()
            return
        self.written_at = time.monotonic()
        if changed:
            if not self.writes:
                gc.freeze()  # what is known first stays for the most part: a search through all of it holds changes up
            self.writes += 1
            log.info("wrote %s", ", ".join(changed))
