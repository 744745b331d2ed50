"""What the ledger knows of one request, and how it is read from the lines of Envoy and of the relay. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

Fields = Mapping[str, Any]
CLIENT_LEFT_FLAGS = frozenset(("DC", "DR"))
"""Envoy's words for a client that closed its connection, or reset its request."""
NOT_FAILURES = frozenset(("-", "", "NR", "RL", "URX", "UAEX", "DI", "FI", "DO", "RLSE", "IH"))
"""Envoy's words beside an answer that was given whole; what the client got is told by its status."""


class Outcome(StrEnum):
    """How a request ended for its client."""

    COMPLETED = "completed"
    REFUSED = "refused"
    """Answered with a status from 400 to 499."""
    FAILED = "failed"
    """Answered with a status from 500, or cut."""
    CLIENT_LEFT = "client_left"


class Source(StrEnum):
    """Who wrote a line, and the first part of the names of its files."""

    ENVOY = "envoy"
    RELAY = "relay"


@dataclass(frozen=True)
class Record:
    """One request of a client. Times in milliseconds; None: not known."""

    id: str
    """Given by the gateway, unique for each HTTP request."""
    request_id: str | None
    """`x-request-id`, which a client may choose and repeat."""
    time: str
    """When the request began, UTC, as RFC 3339."""
    tenant: str | None
    model: str | None
    service: str | None
    """`namespace/name`."""
    revision: str | None
    region: str | None
    """That began the answer."""
    regions: tuple[str, ...]
    """All that gave a part of it."""
    method: str | None
    path: str | None
    stream: bool
    tokens_in: int | None
    tokens_out: int | None
    """That the client got."""
    ttft_ms: int | None
    """To the first byte of the answer's body; of a stream that passed the relay, to its first token."""
    latency_ms: int | None
    status: int | None
    outcome: Outcome
    resumed: int
    """How often a stream was continued by another engine."""
    attempts: int
    gateway: str
    request: str | None = None
    """The beginning of its body, where the gateway is told to record it."""
    response: str | None = None
    """The beginning of the answer's body as the client got it; of a stream its events."""

    def line(self) -> bytes:
        """As one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"

    @property
    def ended(self) -> datetime:
        """When the client had its answer."""
        return moment(self.time) + timedelta(milliseconds=self.latency_ms or 0)


@dataclass(frozen=True)
class Entry:
    """One line of the spool."""

    source: Source
    record: Record
    via_relay: bool
    """Whether the relay writes, or wrote, a line of the same request."""


def moment(text: str) -> datetime:
    """A point in time, with its zone. Raises ValueError."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"a time without a zone: {text}")
    return found


def stamp(at: datetime) -> str:
    """As records have it."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read(source: Source, fields: Any, gateway: str, relay: str) -> Entry:
    """An entry out of a line's JSON; `relay` is the relay's address and port. Raises ValueError."""
    if not isinstance(fields, dict):
        raise ValueError("a line is no object")
    if source is Source.RELAY:
        return Entry(source, record_of(fields, gateway, outcome=Outcome(str(fields.get("outcome")))), True)
    made = record_of(fields, gateway, outcome=judged(fields))
    return Entry(source, made, bool(relay) and fields.get("upstream") == relay)


def judged(fields: Fields) -> Outcome:
    """How a request ended, by Envoy's line."""
    flags = set(str(fields.get("flags") or "").split(","))
    status = whole(fields.get("status")) or 0
    if flags & CLIENT_LEFT_FLAGS:
        return Outcome.CLIENT_LEFT
    if status >= 500 or status == 0 or fields.get("error") is True:
        return Outcome.FAILED
    if status >= 400:
        return Outcome.REFUSED
    return Outcome.COMPLETED if flags <= NOT_FAILURES else Outcome.FAILED


def record_of(fields: Fields, gateway: str, outcome: Outcome) -> Record:
    """What both kinds of line have in common. Raises ValueError for a line without an id or a time."""
    name, began = text(fields.get("id")), text(fields.get("time"))
    if not name or not began:
        raise ValueError("a line without an id or a time")
    region = text(fields.get("region"))
    cluster = (text(fields.get("cluster")) or "").split("/", 1)
    regions = fields.get("regions")
    return Record(
        id=name,
        request_id=text(fields.get("request_id")),
        time=stamp(moment(began)),
        tenant=text(fields.get("tenant")),
        model=text(fields.get("model")),
        service=text(fields.get("service")) or (cluster[1] if len(cluster) == 2 else None),
        revision=text(fields.get("revision")),
        region=region,
        regions=tuple(map(str, regions)) if isinstance(regions, list) else ((region,) if region else ()),
        method=text(fields.get("method")),
        path=text(fields.get("path")),
        stream=fields.get("stream") is True,
        tokens_in=whole(fields.get("tokens_in")),
        tokens_out=whole(fields.get("tokens_out")),
        ttft_ms=whole(fields.get("ttft_ms")),
        latency_ms=whole(fields.get("latency_ms")),
        status=whole(fields.get("status")) or None,
        outcome=outcome,
        resumed=whole(fields.get("resumed")) or 0,
        attempts=whole(fields.get("attempts")) or 0,
        gateway=gateway,
        request=text(fields.get("request")),
        response=text(fields.get("response")),
    )


def merged(envoy: Record, relay: Record) -> Record:
    """One record of a stream that both have written of: the relay knows its tokens, Envoy how it ended for the client.
    A stream that ends with an error event is a good answer to Envoy alone."""
    ended = envoy.outcome is Outcome.COMPLETED and relay.outcome is Outcome.FAILED
    return replace(
        envoy,
        model=envoy.model or relay.model,
        service=envoy.service or relay.service,
        revision=envoy.revision or relay.revision,
        region=envoy.region or relay.region,
        regions=relay.regions or envoy.regions,
        tokens_in=envoy.tokens_in if relay.tokens_in is None else relay.tokens_in,
        tokens_out=envoy.tokens_out if relay.tokens_out is None else relay.tokens_out,
        ttft_ms=envoy.ttft_ms if relay.ttft_ms is None else relay.ttft_ms,
        outcome=Outcome.FAILED if ended else envoy.outcome,
        resumed=relay.resumed,
        attempts=relay.attempts,
    )


def loaded(fields: Any) -> Record:
    """A record that was written by `line`. Raises ValueError."""
    if not isinstance(fields, dict):
        raise ValueError("a line is no object")
    return record_of(fields, text(fields.get("gateway")) or "", Outcome(str(fields.get("outcome"))))


def text(value: Any) -> str | None:
    """A string that says something."""
    return value if isinstance(value, str) and value not in ("", "-") else None


def whole(value: Any) -> int | None:
    """A number that is none of a boolean."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
