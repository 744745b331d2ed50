"""Joins clusters, so that each region's operator can read the others: `holdfast region join`, and `join` for Python.

For every ordered pair the cluster that is read gets a ServiceAccount of least rights, and the reader's cluster a
Secret with a kubeconfig for it; every cluster gets the `Region` objects of all. Joining again changes nothing.
"""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from urllib.parse import urlsplit

from holdfast.api.names import API_VERSION, NAMESPACE
from holdfast.api.region import RegionRole
from holdfast.cli import peering
from holdfast.cli.peering import Endpoint
from holdfast.cli.server import Forbidden, Manifest, Server, path
from holdfast.errors import ClusterError, ConfigError, HoldfastError, NotFound

TOKEN_SECONDS = 30.0
"""How long the cluster may take to issue a token, and to accept it."""

PAUSE_SECONDS = 0.2

LOOPBACK = ("localhost", "127.", "::1", "0.0.0.0")

Report = Callable[[str], None]


class JoinError(HoldfastError):
    """Clusters cannot be joined; one sentence on each line."""


@dataclass(frozen=True)
class Cluster:
    """One cluster to join."""

    name: str
    """Name of its `Region`."""
    kubeconfig: Path
    """Whose rights are used; needs to be allowed what `peering` grants."""
    context: str | None = None
    """Context in the kubeconfig; its current one if None."""
    gateway_address: str | None = None
    """IP address or host name of its gateway; as in an existing `Region` object if None."""
    server: str | None = None
    """URL where other clusters reach its API server; as in the kubeconfig if None."""
    role: RegionRole | None = None
    """Serving or Witness; as in an existing `Region` object, else Serving, if None."""


@dataclass(frozen=True)
class Step:
    """One object that was written, or would be."""

    cluster: str
    action: str
    """created, changed, unchanged or deleted."""
    kind: str
    name: str


@dataclass
class _Joined:
    """A cluster at work: its server and what was found there."""

    cluster: Cluster
    server: Server
    uid: str
    regions: dict[str, Manifest]
    has_namespace: bool
    dry_run: bool
    steps: list[Step] = field(default_factory=list)

    def apply(self, manifest: Manifest) -> Manifest:
        """Apply one object and note what that changed; in a dry run only note it."""
        meta = manifest["metadata"]
        before = self.server.find(path(manifest["kind"], meta.get("namespace", ""), meta["name"]))
        if self.dry_run:
            after = before or manifest
            action = "created" if before is None else "unchanged" if peering.holds(before, manifest) else "changed"
        else:
            after = self.server.apply(manifest, peering.MANAGER)
            same = before and before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
            action = "created" if before is None else "unchanged" if same else "changed"
        self.steps.append(Step(self.cluster.name, action, manifest["kind"], meta["name"]))
        return after

    def delete(self, kind: str, name: str) -> None:
        if not self.dry_run:
            self.server.delete(path(kind, NAMESPACE, name))
        self.steps.append(Step(self.cluster.name, "deleted", kind, name))


def join(
    clusters: Sequence[Cluster], *, rotate: bool = False, dry_run: bool = False, report: Report = lambda _line: None
) -> list[Step]:
    """Join two or more clusters to each other; `report` gets a line for each thing that is done.

    With `rotate` every token is issued anew and the old one removed at the end. A dry run only reads. Raises
    JoinError before anything is written where clusters cannot be joined at all, and ClusterError where a server
    refuses a write; running it again goes on.
    """
    _check(clusters)
    joined = _look(clusters, dry_run, report)
    try:
        _check_together(joined)
        for each in joined:
            begun = len(each.steps)
            for manifest in (*(() if each.has_namespace else (peering.namespace(),)), *peering.roles()):
                each.apply(manifest)
            report(f"✓ {each.cluster.name}: namespace and roles: {_summary(each.steps[begun:])}")
        outdated: list[tuple[_Joined, str]] = []
        for reader, read in permutations(joined, 2):
            begun, stored = len(read.steps), len(reader.steps)
            sentence, old = _connect(reader, read, rotate)
            outdated += [(read, name) for name in old]
            report(f"✓ {sentence}: {_summary([*read.steps[begun:], *reader.steps[stored:]])}")
        for each in joined:
            begun = len(each.steps)
            for other in joined:
                each.apply(_region(other.cluster.name, other.cluster, each, joined))
            report(f"✓ {each.cluster.name}: Region objects: {_summary(each.steps[begun:])}")
        for each, name in outdated:
            each.delete("Secret", name)
            report(f"✓ {each.cluster.name}: old token {name} deleted")
        for each in joined:
            if strangers := sorted(set(each.regions) - {other.cluster.name for other in joined}):
                report(f"! {each.cluster.name} also knows {', '.join(strangers)}: join them in the same way")
        return [step for each in joined for step in each.steps]
    finally:
        for each in joined:
            each.server.close()


def _check(clusters: Sequence[Cluster]) -> None:
    """What can be seen without asking anybody."""
    wrong = []
    if len(clusters) < 2:
        wrong.append("Joining takes two clusters or more: name another one with --peer.")
    names = [each.name for each in clusters]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            wrong.append(f"{name} is named twice.")
        if not peering.usable_name(name):
            wrong.append(f"{name!r} cannot name a region: use at most 40 lower-case letters, digits and '-'.")
    wrong += [f"{each.name}: there is no file {each.kubeconfig}." for each in clusters if not each.kubeconfig.is_file()]
    if wrong:
        raise JoinError("\n".join(wrong))


def _look(clusters: Sequence[Cluster], dry_run: bool, report: Report) -> list[_Joined]:
    """Ask every cluster who it is and what it has. Raises JoinError with a sentence for each that cannot be used."""
    found, wrong = [], []
    for cluster in clusters:
        try:
            server = Server.open(cluster.name, cluster.kubeconfig, cluster.context)
            uid = server.get(path("Namespace", name="kube-system"))["metadata"]["uid"]
            version = server.get("/version")["gitVersion"]
            regions = {each["metadata"]["name"]: each for each in _read_regions(server)}
            has_namespace = server.find(path("Namespace", name=NAMESPACE)) is not None
        except (ClusterError, ConfigError, JoinError) as error:
            wrong.append(str(error))
            continue
        report(f"✓ {cluster.name}: Kubernetes {version} at {server.host}")
        found.append(_Joined(cluster, server, uid, regions, has_namespace, dry_run))
    if wrong:
        raise JoinError("\n".join(wrong))
    return found


def _read_regions(server: Server) -> list[Manifest]:
    try:
        known = {each["name"] for each in server.get(f"/apis/{API_VERSION}")["resources"]}
    except NotFound:
        known = set()
    if missing := {"llmservices", "regions", "regionplans"} - known:
        raise JoinError(
            f"{server.name}: Holdfast's kinds are not installed ({', '.join(sorted(missing))} missing): install the "
            "chart, or run `holdfast crds | kubectl apply --server-side -f -` there."
        )
    return server.list("Region")


def _check_together(joined: Sequence[_Joined]) -> None:
    """What can be said once all have answered."""
    wrong = []
    first: dict[str, str] = {}
    for each in joined:
        name, cluster = each.cluster.name, each.cluster
        if other := first.get(each.uid):
            wrong.append(f"{other} and {name} are the same cluster (uid {each.uid} of namespace kube-system).")
        first.setdefault(each.uid, name)
        if not cluster.server and (urlsplit(each.server.host).hostname or "").startswith(LOOPBACK):
            wrong.append(
                f"{name}: its kubeconfig names {each.server.host}, which other clusters cannot reach: give "
                f"--server {name}=URL."
            )
        if not cluster.gateway_address and not any(name in other.regions for other in joined):
            wrong.append(f"{name}: no cluster has a Region {name} yet: give --gateway-address {name}=ADDRESS.")
    if wrong:
        raise JoinError("\n".join(wrong))


def _connect(reader: _Joined, read: _Joined, rotate: bool) -> tuple[str, list[str]]:
    """Let `reader` read `read`; returns a sentence, and the token Secrets that are to be deleted once all is done."""
    name = reader.cluster.name
    for manifest in peering.access(name):
        read.apply(manifest)
    found = read.server.list("Secret", NAMESPACE, f"{peering.PEER_LABEL}={name}") if read.has_namespace else []
    numbers = {peering.token_number(each["metadata"]["name"]): each["metadata"]["name"] for each in found}
    latest = max(numbers, default=0)
    number = latest + 1 if rotate or not latest else latest
    read.apply(peering.token(name, number))
    endpoint = endpoint_of(read.cluster, read.server)
    bearer = ""
    if not read.dry_run:
        bearer = _wait_for_token(read.server, peering.token_name(name, number))
        _try(read.server, replace(endpoint, server=read.server.host), bearer)
    document = peering.kubeconfig(read.cluster.name, endpoint, name, bearer)
    secret = peering.kubeconfig_secret(read.cluster.name, document)
    if reader.dry_run:
        del secret["data"]  # a dry run reads no token
    reader.apply(secret)
    unverified = "" if endpoint.verified else ", its certificate not verified"
    return f"{name} reads {read.cluster.name} at {endpoint.server}{unverified}", [
        old for each, old in numbers.items() if each != number
    ]


def endpoint_of(cluster: Cluster, server: Server) -> Endpoint:
    """How others reach a cluster: as its kubeconfig says, except for the URL where one was given."""
    configuration = server.configuration
    authority = Path(configuration.ssl_ca_cert).read_bytes() if configuration.ssl_ca_cert else None
    return Endpoint(
        server=(cluster.server or server.host).rstrip("/"),
        certificate_authority=authority,
        tls_server_name=configuration.tls_server_name or None,
        verified=bool(configuration.verify_ssl),
    )


def _wait_for_token(server: Server, name: str) -> str:
    until = time.monotonic() + TOKEN_SECONDS
    while time.monotonic() < until:
        if token := server.get(path("Secret", NAMESPACE, name)).get("data", {}).get("token"):
            return base64.b64decode(token).decode()
        time.sleep(PAUSE_SECONDS)
    raise JoinError(f"{server.name}: Kubernetes put no token into Secret {name} within {TOKEN_SECONDS:g} s.")


def _try(server: Server, endpoint: Endpoint, bearer: str) -> None:
    """Use the token once, at the address that this machine reaches: new rights take a moment to be known."""
    peer = Server.from_secret(server.name, peering.kubeconfig(server.name, endpoint, "", bearer))
    until = time.monotonic() + TOKEN_SECONDS
    try:
        while True:
            try:
                peer.get(path("Region"))
                return
            except Forbidden as error:
                if time.monotonic() > until:
                    raise JoinError(f"The token does not work after {TOKEN_SECONDS:g} s: {error}") from error
                time.sleep(PAUSE_SECONDS)
    finally:
        peer.close()


def _region(name: str, cluster: Cluster, target: _Joined, joined: Sequence[_Joined]) -> Manifest:
    """The `Region` named `name`, for the target's cluster; a new one starts as the region itself knows it."""
    known = {each.cluster.name: each.regions[name] for each in joined if name in each.regions}
    return peering.region_object(
        name,
        address=cluster.gateway_address,
        role=cluster.role,
        here=target.regions.get(name),
        elsewhere=known.get(name) or next(iter(known.values()), None),
    )


def _summary(steps: Sequence[Step]) -> str:
    """`2 created, 1 unchanged`."""
    counts = Counter(each.action for each in steps)
    return ", ".join(f"{count} {action}" for action, count in counts.items())
