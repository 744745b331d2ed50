"""What the load's process observed, one frozen record per request and per stream, and their form as JSON lines.

All times are seconds since the load's start, on the machine's monotonic clock. A latency counts from the moment a
request was scheduled, so a request that the client sent late counts as slow.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum


class StreamOutcome(StrEnum):
    """How a stream ended."""

    COMPLETED = "completed"
    """A finish reason, the end marker `[DONE]` and all tokens that were asked for have arrived."""
    TRUNCATED = "truncated"
    """It began and ended before that."""
    FAILED = "failed"
    """Not one token arrived."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request whose answer comes as a whole."""

    id: str
    scheduled: float
    sent: float
    ended: float
    tokens: int
    """Tokens that were asked for."""
    region: str
    """Region whose engine answered; empty when nobody did or the answer does not say."""
    error: str = ""
    """What was wrong; empty when the answer was right."""

    @property
    def ok(self) -> bool:
        """Whether the answer arrived and was right."""
        return not self.error

    @property
    def latency(self) -> float:
        """Seconds from the scheduled moment to the answer's end."""
        return self.ended - self.scheduled

    @property
    def lateness(self) -> float:
        """Seconds that the load itself sent it too late."""
        return self.sent - self.scheduled


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One stream of server-sent events."""

    id: str
    started: float
    ended: float
    tokens: int
    """Tokens that were asked for."""
    events: int
    """Events with a part of the answer that arrived; an engine may put several tokens into one."""
    region: str
    """Region that began it; empty when nobody did or the answer does not say."""
    outcome: StreamOutcome
    error: str = ""
    """Why it is not completed."""


Record = RequestRecord | StreamRecord


@dataclass(frozen=True, slots=True)
class Records:
    """Everything one load observed."""

    requests: tuple[RequestRecord, ...] = ()
    streams: tuple[StreamRecord, ...] = ()

    @classmethod
    def of(cls, records: list[Record]) -> Records:
        """The records by kind, each in the order of its start."""
        requests = [record for record in records if isinstance(record, RequestRecord)]
        streams = [record for record in records if isinstance(record, StreamRecord)]
        return cls(
            tuple(sorted(requests, key=lambda record: record.scheduled)),
            tuple(sorted(streams, key=lambda record: record.started)),
        )


def to_line(record: Record) -> str:
    """The record as one line of JSON."""
    kind = "request" if isinstance(record, RequestRecord) else "stream"
    return json.dumps({kind: asdict(record)}, separators=(",", ":"))


def from_json(content: dict[str, dict[str, object]]) -> Record | None:
    """The record that a parsed line holds; None if the line holds something else."""
    if fields := content.get("request"):
        return RequestRecord(**fields)  # type: ignore[arg-type]
    if fields := content.get("stream"):
        return StreamRecord(**{**fields, "outcome": StreamOutcome(str(fields["outcome"]))})  # type: ignore[arg-type]
    return None
