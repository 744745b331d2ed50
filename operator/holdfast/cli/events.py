"""Events that Holdfast's operators left in one cluster."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from holdfast.api.names import GROUP
from holdfast.cli.columns import ago, table
from holdfast.cli.server import Manifest, Server
from holdfast.domain.orders import NEVER, moment

CLUSTER_SCOPED = "default"
"""Namespace that holds the events of objects without one."""


@dataclass(frozen=True)
class Event:
    """One thing that happened, perhaps several times."""

    last: datetime
    type: str
    reason: str
    about: str
    message: str
    count: int = 1


def read(server: Server, namespace: str | None) -> list[Event]:
    """The events about services of a namespace (None: of all) and about regions, the latest last."""
    found = server.list("Event", namespace or "")
    if namespace and namespace != CLUSTER_SCOPED:
        found += [each for each in server.list("Event", CLUSTER_SCOPED) if each["involvedObject"]["kind"] == "Region"]
    ours = (each for each in found if each["involvedObject"].get("apiVersion", "").startswith(f"{GROUP}/"))
    return sorted((parse(each) for each in ours), key=lambda event: event.last)


def parse(manifest: Manifest) -> Event:
    """An event as either of Kubernetes' event APIs writes it."""
    about = manifest["involvedObject"]
    series = manifest.get("series") or {}
    times = (series.get("lastObservedTime"), manifest.get("lastTimestamp"), manifest.get("eventTime"))
    last = next((moment(each) for each in (*times, manifest["metadata"].get("creationTimestamp")) if each), NEVER)
    name = f"{about['namespace']}/{about['name']}" if about.get("namespace") else about["name"]
    return Event(
        last=last,
        type=manifest.get("type") or "Normal",
        reason=manifest.get("reason") or "",
        about=f"{about['kind']} {name}",
        message=manifest.get("message") or "",
        count=series.get("count") or manifest.get("count") or 1,
    )


def text(events: list[Event], now: datetime | None = None) -> list[str]:
    """A table; how often a thing happened is said where it was more than once."""
    if not events:
        return ["No events about services or regions; a cluster forgets them after an hour."]
    at = now or datetime.now(UTC)
    rows = []
    for each in events:
        often = f" ({each.count} times)" if each.count > 1 else ""
        rows.append([ago(at - each.last), each.type, each.reason, each.about, each.message + often])
    return table(["AGO", "TYPE", "REASON", "ABOUT", "MESSAGE"], rows, fold=True)


def data(events: list[Event]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "last": each.last.isoformat(),
            "type": each.type,
            "reason": each.reason,
            "about": each.about,
            "message": each.message,
            "count": each.count,
        }
        for each in events
    ]
