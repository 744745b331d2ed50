"""Observes every region's gateway from where this operator stands.

Each second every service is asked for in every region: is one of its engines healthy (`/ready/…` on the peer port,
which answers from that region alone)? How did users' requests end, and do tokens come for those that are there
(`/traffic`, for all services at once)? Every few seconds it must also generate one token for the observer itself. What
comes of it is `domain.health`'s business; this only asks.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from holdfast.adapters import metrics
from holdfast.adapters.gateways import Gateways, why
from holdfast.api import names
from holdfast.api.conditions import Reason
from holdfast.api.region import RegionSpec, RegionStatus, Verdict
from holdfast.api.traffic import TRAFFIC_PATH, ServiceTraffic
from holdfast.domain.health import (
    Limits,
    Probe,
    Thresholds,
    Watching,
    after_probe,
    blind,
    closed_eyes,
    complaint,
    excused,
    restored,
)

PERIOD_SECONDS = 1.0
COMPLETION_SECONDS = 5.0
"""How often a synthetic completion is asked for; at once again while the last one failed."""
READY_SECONDS = 1.0
PROMPT_SECONDS = 0.5
"""How long a round waits for a completion; one that takes longer counts in the round in which it ends."""
AT_ONCE = 64
"""Probes in flight."""
EACH_ROUND = 12
"""Services that are probed in one round, so that many services cost no more than that; the others come in turn. Those
that were seen to change are probed in every round."""
HEADERS = {names.PROBE_HEADER: "1"}


@dataclass(frozen=True)
class Target:
    """One service in one region."""

    service: str
    """`namespace/name`."""
    model: str
    region: str
    thresholds: Thresholds
    limits: Limits


@dataclass(frozen=True)
class _Answer:
    """What a region's gateway says of itself and of all its services."""

    probe: Probe
    traffic: Mapping[str, ServiceTraffic] = field(default_factory=dict)
    """Service → its users' requests of late; nothing where there are none, or the gateway does not say."""


@dataclass
class _Progress:
    """The synthetic completions of one service in one region; times of the monotonic clock."""

    last: Probe | None = None
    began: float = 0.0
    """When the last one was asked for."""
    due: float = 0.0
    task: asyncio.Task[Probe] | None = None
    """The one that is on its way."""


@dataclass
class Observer:
    """What this operator sees of the regions."""

    regions: dict[str, Watching] = field(default_factory=dict)
    """Region → whether its gateway answers."""
    services: dict[tuple[str, str], Watching] = field(default_factory=dict)
    """(region, service) → what is held of it."""
    _restored: bool = False
    _turn: int = 0
    _progress: dict[tuple[str, str], _Progress] = field(default_factory=dict)

    def restore(self, published: Mapping[str, RegionStatus], region: str) -> None:
        """Take up what this region's observer had published before it was started again; once."""
        if self._restored:
            return
        self._restored = True
        for name, status in published.items():
            if status.observer != region:
                continue
            for each in status.services:
                self.services[name, each.service] = restored(each.verdict, Reason(each.reason), each.message or "")

    async def observe(self, gateways: Gateways, regions: Mapping[str, RegionSpec], targets: Iterable[Target]) -> bool:
        """One round of probes. Returns whether a verdict changed."""
        before = self._verdicts()
        wanted = list(targets)
        gate = asyncio.Semaphore(AT_ONCE)
        found = await asyncio.gather(*(_gateway(gateways, gate, name, spec) for name, spec in regions.items()))
        answers = dict(zip(regions, found, strict=True))
        now = time.monotonic()
        if blind(each.probe for each in found):
            met = found[0].probe.message
            self.regions = {name: closed_eyes(self.regions.get(name, Watching()), met) for name in regions}
            self.services = {key: closed_eyes(each, met) for key, each in self.services.items()}
        else:
            for name, answer in answers.items():
                self.regions[name] = after_probe(self.regions.get(name, Watching()), answer.probe, now, Thresholds())
            await asyncio.gather(
                *(self._service(gateways, gate, regions[each.region], each, answers[each.region])
                  for each in self._this_round(wanted, answers))
            )  # fmt: skip
        keep = {(each.region, each.service) for each in wanted}
        self.services = {key: each for key, each in self.services.items() if key in keep}
        self._progress = {key: each for key, each in self._progress.items() if key in keep}
        self.regions = {name: each for name, each in self.regions.items() if name in regions}
        return before != self._verdicts()

    def _verdicts(self) -> list[tuple[tuple[str, str], Verdict]]:
        regions = {(name, ""): each for name, each in self.regions.items()}
        return [(key, each.verdict) for key, each in sorted({**regions, **self.services}.items())]

    def _this_round(self, wanted: Sequence[Target], gateways: Mapping[str, _Answer]) -> list[Target]:
        """What to look at now: all services of a silent gateway, those in doubt, and a part of the rest."""
        known = [each for each in wanted if each.region in gateways]
        silent = [each for each in known if not gateways[each.region].probe.ok]
        asked = [each for each in known if gateways[each.region].probe.ok]
        doubtful = [each for each in asked if self._doubtful(each, gateways[each.region])][:EACH_ROUND]
        rest = [each for each in asked if each not in doubtful] if len(asked) > EACH_ROUND else []
        if not rest:
            return known
        start = self._turn % len(rest)
        self._turn = start + EACH_ROUND
        return [*silent, *doubtful, *(rest[start:] + rest[:start])[:EACH_ROUND]]

    def _doubtful(self, target: Target, answer: _Answer) -> bool:
        held = self.services.get((target.region, target.service))
        seen = answer.traffic.get(target.service)
        changing = held is not None and held.agreeing_since is not None
        return changing or (seen is not None and complaint("", seen, target.limits) is not None)

    async def _service(
        self,
        gateways: Gateways,
        gate: asyncio.Semaphore,
        spec: RegionSpec,
        target: Target,
        answer: _Answer,
    ) -> None:
        key = (target.region, target.service)
        seen = answer.traffic.get(target.service)
        asked = answer.probe.ok
        probe, began = await self._engines(gateways, gate, spec, target, seen) if asked else (answer.probe, None)
        if probe is None:
            return  # the first completion is on its way
        metrics.PROBES.labels(target.region, "ok" if probe.ok else str(probe.reason)).inc()
        before = self.services.get(key, Watching())
        self.services[key] = after_probe(before, probe, time.monotonic(), target.thresholds, began)

    async def _engines(
        self,
        gateways: Gateways,
        gate: asyncio.Semaphore,
        spec: RegionSpec,
        target: Target,
        seen: ServiceTraffic | None,
    ) -> tuple[Probe | None, float | None]:
        """The probe's outcome, and when it began; a slow completion does not hold up the round."""
        where = f"{target.service} in {target.region}"
        status, _, error = await _get(gateways, gate, spec, f"/ready/{target.service}")
        if status != 200:
            what = error or f"HTTP {status}"
            message = f"No engine of {where} answers: {what}."
            return Probe(False, Reason.NO_ENGINE_ANSWERS, message), None
        if seen and (said := complaint(where, seen, target.limits)):
            return said, time.monotonic() - (seen.silent_seconds or 0.0)
        known = self._progress.setdefault((target.region, target.service), _Progress())
        now = time.monotonic()
        if known.task is None and (known.last is None or not known.last.ok or now >= known.due):
            known.began, known.due = now, now + COMPLETION_SECONDS * random.uniform(0.8, 1.0)
            known.task = asyncio.create_task(_complete(gateways, gate, spec, target))
        if known.task is not None:
            await asyncio.wait({known.task}, timeout=PROMPT_SECONDS)
            if known.task.done():
                known.last, known.task = known.task.result(), None
                known.last = excused(where, known.last, seen)
                return known.last, known.began
        return known.last, None


async def _gateway(gateways: Gateways, gate: asyncio.Semaphore, region: str, spec: RegionSpec) -> _Answer:
    (status, _, error), (told, text, _) = await asyncio.gather(
        _get(gateways, gate, spec, "/ready"), _get(gateways, gate, spec, TRAFFIC_PATH)
    )
    if status == 200:
        probe = Probe(True, Reason.ANSWERING, f"The gateway of {region} answers.")
        return _Answer(probe, read_traffic(text) if told == 200 else {})
    what = error or f"HTTP {status}"
    return _Answer(Probe(False, Reason.GATEWAY_UNREACHABLE, f"The gateway of {region} does not answer: {what}."))


def read_traffic(text: str) -> dict[str, ServiceTraffic]:
    """What a gateway tells; what cannot be read counts as not said."""
    try:
        return {key: ServiceTraffic.parse(each) for key, each in json.loads(text).items()}
    except (ValueError, AttributeError):
        return {}


async def _complete(gateways: Gateways, gate: asyncio.Semaphore, spec: RegionSpec, target: Target) -> Probe:
    """Ask for one token. An engine that refuses as it is full is alive."""
    where = f"{target.service} in {target.region}"
    body = {"model": target.model, "prompt": "ping", "max_tokens": 1, "temperature": 0}
    headers = {**HEADERS, names.SERVICE_HEADER: target.service}
    seconds = target.limits.progress_timeout
    try:
        async with (
            gate,
            gateways.ask(spec, "/v1/completions", seconds=seconds, headers=headers, body=body) as answer,
        ):
            await answer.read()
            if answer.status in (200, 429):
                return Probe(True, Reason.ANSWERING, f"{where} generates.")
            what = f"HTTP {answer.status}"
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        what = why(error, seconds)
    return Probe(False, Reason.NO_PROGRESS, f"{where} generates no token: {what}.")


async def _get(gateways: Gateways, gate: asyncio.Semaphore, spec: RegionSpec, path: str) -> tuple[int, str, str]:
    """(status, body, "") or (0, "", why there is no answer)."""
    try:
        async with gate, gateways.ask(spec, path, seconds=READY_SECONDS, headers=HEADERS) as answer:
            return answer.status, (await answer.read()).decode(errors="replace"), ""
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        return 0, "", why(error, READY_SECONDS)
