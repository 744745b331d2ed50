"""Adds records up: by tenant, model, day or whatever they tell. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from holdfast_gateway.ledger.record import Outcome, Record

UNKNOWN = "-"


class By(StrEnum):
    """What records can be added up by."""

    TENANT = "tenant"
    MODEL = "model"
    SERVICE = "service"
    REVISION = "revision"
    REGION = "region"
    GATEWAY = "gateway"
    OUTCOME = "outcome"
    DAY = "day"
    HOUR = "hour"

    def of(self, record: Record) -> str:
        """A record's group; days and hours are those of UTC in which the request began."""
        match self:
            case By.DAY:
                return record.time[:10]
            case By.HOUR:
                return record.time[:13] + ":00Z"
            case _:
                return getattr(record, self.value) or UNKNOWN


@dataclass
class Total:
    """What the records of one group come to."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    uncounted: int = 0
    """Good answers of which nobody knows the tokens."""
    refused: int = 0
    failed: int = 0
    client_left: int = 0
    resumed: int = 0
    """Requests that were continued by another engine."""
    ttft: list[int] = field(default_factory=list)
    """Of good answers, in milliseconds."""

    def add(self, record: Record) -> None:
        """Counts a record."""
        self.requests += 1
        self.tokens_in += record.tokens_in or 0
        self.tokens_out += record.tokens_out or 0
        self.refused += record.outcome is Outcome.REFUSED
        self.failed += record.outcome is Outcome.FAILED
        self.client_left += record.outcome is Outcome.CLIENT_LEFT
        self.resumed += record.resumed > 0
        if record.outcome is Outcome.COMPLETED:
            self.uncounted += record.tokens_out is None and record.model is not None
            if record.ttft_ms is not None:
                self.ttft.append(record.ttft_ms)

    def row(self) -> dict[str, int | None]:
        """Its columns, in turn."""
        return {
            "requests": self.requests,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "uncounted": self.uncounted,
            "refused": self.refused,
            "failed": self.failed,
            "client_left": self.client_left,
            "resumed": self.resumed,
            "ttft_p50_ms": percentile(self.ttft, 50),
            "ttft_p99_ms": percentile(self.ttft, 99),
        }


def once(records: Iterable[Record]) -> Iterator[Record]:
    """Of several with one id the first."""
    seen: set[str] = set()
    for record in records:
        if record.id not in seen:
            seen.add(record.id)
            yield record


def totals(records: Iterable[Record], by: Sequence[By]) -> dict[tuple[str, ...], Total]:
    """The sums of each group, sorted; `records` may hold some twice."""
    found: dict[tuple[str, ...], Total] = {}
    for record in once(records):
        found.setdefault(tuple(each.of(record) for each in by), Total()).add(record)
    return dict(sorted(found.items()))


def percentile(values: Sequence[int], percent: int) -> int | None:
    """The smallest value that so many percent do not exceed; None of none."""
    if not values:
        return None
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


COLUMNS = tuple(Total().row())
