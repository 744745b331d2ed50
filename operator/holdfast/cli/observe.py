"""Gathers a `Fleet`: the cluster that the kubeconfig names, and every other that its Secrets let the user read."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from holdfast.adapters.observe import read_plan
from holdfast.api.llmservice import LLMServiceSpec, LLMServiceStatus
from holdfast.api.names import API_VERSION, EPOCH_ANNOTATION, LEASE, NAMESPACE, OBSERVER_LEASE
from holdfast.api.region import Region, RegionSpec, RegionStatus
from holdfast.cli.fleet import Fleet, LeaseSeen, ServiceSeen, Site
from holdfast.cli.server import Forbidden, Server, path
from holdfast.domain.orders import NEVER, moment
from holdfast.errors import ClusterError, ConfigError, HoldfastError, NotFound

UNNAMED = "this cluster"
"""What the own region is called while its operator has not yet said."""


class NotInstalled(HoldfastError):
    """The cluster does not know Holdfast's kinds."""


class Observer:
    """Reads the fleet again and again; the connections stay."""

    def __init__(self, server: Server, peers: bool = True) -> None:
        self.server = server
        self._ask_peers = peers
        self._peers: dict[str, Server] = {}
        self._untold: dict[str, str] = {}
        self._here = ""

    def observe(self) -> Fleet:
        """The fleet now. Raises a HoldfastError if the own cluster cannot be read."""
        own = read_site(self.server)
        if not self._here:
            self._meet(own)
        sites, unread = {self._here: own}, dict(self._untold)
        with ThreadPoolExecutor(max_workers=16) as pool:
            running = {name: pool.submit(read_site, peer) for name, peer in self._peers.items()}
            for name, reading in running.items():
                try:
                    sites[name] = reading.result()
                except HoldfastError as error:
                    unread[name] = str(error)
        ordered = {name: sites[name] for name in (*own.regions, self._here) if name in sites}
        return Fleet(datetime.now(UTC), self._here, ordered, unread)

    def close(self) -> None:
        """Release the connections."""
        for each in (self.server, *self._peers.values()):
            each.close()

    def _meet(self, own: Site) -> None:
        """Find out who the own region is, and connect to the others."""
        said = own_name(own)
        if not self._ask_peers:
            self._here = said or UNNAMED
            return
        for name, region in own.regions.items():
            if name == said:
                continue
            try:
                self._peers[name] = self._connect(name, region)
            except (ClusterError, ConfigError) as error:
                self._untold[name] = _peer_trouble(name, error)
        if not said:  # a region keeps no Secret for itself
            without = [name for name in own.regions if name not in self._peers]
            said = without[0] if len(without) == 1 else ""
        self._here = said or UNNAMED
        self._untold.pop(self._here, None)

    def _connect(self, name: str, region: Region) -> Server:
        secret = region.spec.kubeconfig
        if secret is None:
            raise ConfigError(f"{name} is not read: its Region object names no kubeconfig.")
        found = self.server.find(path("Secret", NAMESPACE, secret.name))
        encoded = (found or {}).get("data", {}).get(secret.key)
        if encoded is None:
            raise ConfigError(f"{name} is not read: there is no Secret {secret.name} with a kubeconfig.")
        try:
            document = base64.b64decode(encoded).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{name} is not read: Secret {secret.name} holds no kubeconfig.") from error
        return Server.from_secret(name, document)


def _peer_trouble(name: str, error: Exception) -> str:
    if isinstance(error, Forbidden):
        return f"{name} is not read: you may not read Secrets in namespace {NAMESPACE}."
    return str(error)


def own_name(site: Site) -> str:
    """The region whose operator writes into a cluster; empty if it has not written yet."""
    observers = (region.status.observer for region in site.regions.values())
    writers = (service.status.region for service in site.services.values())
    return next((each for each in (*observers, *writers) if each), "")


def read_site(server: Server) -> Site:
    """All that one API server holds. Raises a ClusterError, or NotInstalled."""
    try:
        regions = {each["metadata"]["name"]: each for each in server.list("Region")}
        services = {_key(each): _service(each) for each in server.list("LLMService")}
        plans = {_key(each): each for each in server.list("RegionPlan")}
    except NotFound as error:
        raise NotInstalled(
            f"{server.name}: this cluster does not know Holdfast's kinds ({API_VERSION}): install the chart there."
        ) from error
    return Site(
        regions={name: region for name, each in regions.items() if (region := parse_region(each))},
        services=services,
        plans={name: plan for name, each in plans.items() if (plan := read_plan(each))},
        lease=_lease(server),
        heard=_heard(server),
    )


def parse_region(manifest: Mapping[str, Any]) -> Region | None:
    """A `Region` from its manifest; None if it is of another version."""
    meta = manifest["metadata"]
    try:
        spec = RegionSpec.parse(manifest.get("spec"))
        status = RegionStatus.parse(manifest.get("status", {}))
        return Region(name=meta["name"], spec=spec, status=status, annotations=meta.get("annotations", {}))
    except ValidationError:
        return None


def _service(manifest: Mapping[str, Any]) -> ServiceSeen:
    spec, status = None, LLMServiceStatus()
    with contextlib.suppress(ValidationError):
        spec = LLMServiceSpec.parse(manifest.get("spec"))
    with contextlib.suppress(ValidationError):
        status = LLMServiceStatus.parse(manifest.get("status", {}))
    return ServiceSeen(spec, status)


def _lease(server: Server) -> LeaseSeen | None:
    """The leader's Lease; None if it is not there or the user may not read it."""
    found = _find_lease(server, LEASE)
    if found is None:
        return None
    spec = found.get("spec", {})
    epoch = found["metadata"].get("annotations", {}).get(EPOCH_ANNOTATION, "")
    return LeaseSeen(
        leader=(spec.get("holderIdentity") or "").rpartition("_")[0],
        epoch=int(epoch) if epoch.isdigit() else 0,
        renewed=_renewed(found),
        seconds=float(spec.get("leaseDurationSeconds") or 15),
    )


def _heard(server: Server) -> datetime | None:
    found = _find_lease(server, OBSERVER_LEASE)
    return _renewed(found) if found else None


def _find_lease(server: Server, name: str) -> Mapping[str, Any] | None:
    try:
        return server.find(path("Lease", NAMESPACE, name))
    except Forbidden:
        return None


def _renewed(lease: Mapping[str, Any]) -> datetime | None:
    found = moment(lease.get("spec", {}).get("renewTime"))
    return None if found == NEVER else found


def _key(manifest: Mapping[str, Any]) -> str:
    meta = manifest["metadata"]
    return f"{meta['namespace']}/{meta['name']}"
