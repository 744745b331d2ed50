"""Every region's API server as this operator reaches it, with mirrors of what the control plane reads there.

The own region is reached by the operator's own credentials, every other one by the kubeconfig in the Secret that its
`Region` object names. Secrets are watched: a new kubeconfig makes a new connection. A region that cannot be reached
costs the others nothing: its mirrors wait and try again by themselves.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from holdfast.adapters.cluster import Cluster, collection
from holdfast.api import names
from holdfast.api.conditions import Reason
from holdfast.domain.observation import Manifest
from holdfast.domain.revision import digest
from holdfast.errors import ConfigError
from holdfast.mirror import Mirror, Pace

log = logging.getLogger(__name__)

CURRENT_SECONDS = 45.0
"""A mirror that has heard nothing for longer is not known to be current; its watches end every 30 s."""

LOOK_SECONDS = 0.5
"""How often it is looked whether a Region or a Secret has changed; both are watched, so this asks nobody."""

PACE = Pace(retry_most=5.0)


@dataclass
class Trouble:
    """Why a region cannot be worked with: reason and sentence."""

    reason: Reason
    message: str


@dataclass
class Site:
    """One region's API server, and what is known to be there."""

    name: str
    cluster: Cluster
    key: str
    """Names the credentials that it is reached with."""
    services: Mirror
    regions: Mirror
    plans: Mirror
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    def at(cls, name: str, cluster: Cluster, key: str, changed: asyncio.Event) -> Site:
        """A site whose mirrors have yet to start."""

        def mirror(plural: str) -> Mirror:
            request = cluster.lister(collection(names.API_VERSION, plural))
            return Mirror(f"{plural} of {name}", request, "", changed, PACE)

        return cls(name, cluster, key, mirror("llmservices"), mirror("regions"), mirror("regionplans"))

    @property
    def mirrors(self) -> tuple[Mirror, Mirror, Mirror]:
        """All that is followed there."""
        return self.services, self.regions, self.plans

    def start(self) -> None:
        """Follow the region."""
        self.tasks = [asyncio.create_task(each.run(), name=each.name) for each in self.mirrors]

    async def stop(self) -> None:
        """Stop following, and close the connections."""
        for task in self.tasks:
            task.cancel()
        for task in self.tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.cluster.close()

    @property
    def complete(self) -> bool:
        """Whether everything was read at least once."""
        return all(each.complete for each in self.mirrors)

    def current(self) -> bool:
        """Whether the mirrors are known to show the present state."""
        now = time.monotonic()
        return all(
            each.complete and each.reachable and each.heard_at is not None and now - each.heard_at < CURRENT_SECONDS
            for each in self.mirrors
        )

    def trouble(self) -> Trouble | None:
        """What keeps the mirrors from being read, if anything."""
        for each in self.mirrors:
            if each.trouble:
                return Trouble(_reason(each.trouble), f"{each.name} cannot be read: {each.trouble[:300]}")
        return None


def _reason(text: str) -> Reason:
    if text.startswith(("(401)", "(403)")):
        return Reason.PEER_REFUSES
    if "(404)" in text or "Expecting value" in text or text.startswith(("'items'", "'metadata'")):
        return Reason.PEER_UNINTELLIGIBLE
    return Reason.PEER_UNREACHABLE


class Sites:
    """All regions that the own cluster's `Region` objects name."""

    def __init__(self, region: str, namespace: str, cluster: Cluster, changed: asyncio.Event) -> None:
        self.region = region
        self.own = Site.at(region, cluster, "own", changed)
        self.peers: dict[str, Site] = {}
        self.troubles: dict[str, Trouble] = {}
        """Regions that no connection could be made for."""
        self._changed = changed
        request = cluster.lister(collection("v1", "secrets", namespace), fieldSelector="type=Opaque")
        self._secrets = Mirror("Secrets with kubeconfigs", request, "", asyncio.Event(), PACE)

    @property
    def all(self) -> dict[str, Site]:
        """Every site that there is a connection for, by region."""
        return {self.region: self.own, **self.peers}

    @property
    def alone(self) -> bool:
        """Whether the own region has no peers to agree with."""
        others = (each for each in self.own.regions.objects.values() if each["metadata"]["name"] != self.region)
        return not any(each["spec"].get("kubeconfig") for each in others)

    @property
    def voters(self) -> tuple[str, ...]:
        """The regions that a majority is counted of."""
        return tuple(sorted(each["metadata"]["name"] for each in self.own.regions.objects.values()))

    def trouble(self, region: str) -> Trouble | None:
        """Why a region cannot be worked with, if so."""
        if region in self.troubles:
            return self.troubles[region]
        site = self.all.get(region)
        return site.trouble() if site else Trouble(Reason.KUBECONFIG_MISSING, f"Region {region} names no kubeconfig.")

    async def run(self) -> None:
        """Follow the own region, and every other that can be; until cancelled."""
        self.own.start()
        secrets = asyncio.create_task(self._secrets.run(), name=self._secrets.name)
        last = ""
        try:
            while True:
                if (
                    self.own.regions.complete
                    and (self.alone or self._secrets.complete)
                    and (now := self._state()) != last
                ):
                    await self._reconnect()
                    last = now
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            secrets.cancel()
            for site in self.peers.values():
                await site.stop()
            for task in self.own.tasks:
                task.cancel()

    def _state(self) -> str:
        """Differs when a connection may have to be made anew."""
        regions = {name: each["spec"] for name, each in self.own.regions.objects.items()}
        secrets = {name: each["metadata"]["resourceVersion"] for name, each in self._secrets.objects.items()}
        return digest([regions, secrets])

    async def _reconnect(self) -> None:
        """Bring the connections in line with the `Region` objects and the Secrets."""
        wanted = {
            each["metadata"]["name"]: each
            for each in self.own.regions.objects.values()
            if each["metadata"]["name"] != self.region
        }
        for gone in [name for name in self.peers if name not in wanted]:
            await self.peers.pop(gone).stop()
            log.info("region %s is no longer named; its connection is closed", gone)
        self.troubles = {}
        for name, region in wanted.items():
            try:
                await self._connect(name, region)
            except _Unusable as error:
                self.troubles[name] = error.trouble
                if site := self.peers.pop(name, None):
                    await site.stop()
                log.warning("region %s: %s", name, error.trouble.message)
        self._changed.set()

    async def _connect(self, name: str, region: Manifest) -> None:
        content = self._kubeconfig(name, region)
        key = digest(content)
        if name in self.peers and self.peers[name].key == key:
            return
        try:
            cluster = await Cluster.from_kubeconfig(content)
        except ConfigError as error:
            raise _Unusable(Reason.KUBECONFIG_INVALID, str(error)) from error
        if name in self.peers:
            await self.peers.pop(name).stop()
            log.info("region %s has a new kubeconfig", name)
        site = self.peers[name] = Site.at(name, cluster, key, self._changed)
        site.start()

    def _kubeconfig(self, name: str, region: Manifest) -> Mapping[str, Any]:
        reference = region["spec"].get("kubeconfig")
        if not reference:
            raise _Unusable(
                Reason.KUBECONFIG_MISSING,
                f"Region {name} names no kubeconfig: join it with `holdfast region join`, or set spec.kubeconfig.",
            )
        secret, key = reference["name"], reference.get("key", "kubeconfig")
        found = next((each for each in self._secrets.objects.values() if each["metadata"]["name"] == secret), None)
        encoded = (found or {}).get("data", {}).get(key)
        if encoded is None:
            what = f"there is no Secret {secret}" if found is None else f"Secret {secret} has no entry {key}"
            raise _Unusable(
                Reason.KUBECONFIG_MISSING, f"Region {name} cannot be reached: {what} in the operator's namespace."
            )
        try:
            content = yaml.safe_load(base64.b64decode(encoded))
        except (yaml.YAMLError, ValueError) as error:
            raise _Unusable(Reason.KUBECONFIG_INVALID, f"Secret {secret} holds no kubeconfig: {error}") from error
        if not isinstance(content, dict):
            raise _Unusable(Reason.KUBECONFIG_INVALID, f"Secret {secret} holds no kubeconfig.")
        return content


class _Unusable(Exception):
    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.trouble = Trouble(reason, message)
