"""Computes what a load saw from its records. Pure: the same records give the same measurement.

Everything about requests goes by the moment a request was scheduled: it counts in that second and in that phase,
and its latency starts there. A stream counts in the second in which it ended.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .records import Record, Records, RequestRecord, StreamOutcome, StreamRecord

UNNAMED = "unnamed"
"""Stands for a region where the answer names none."""
WINDOW_SECONDS = 3.0


class Phase(StrEnum):
    """Parts of a load, by its faults."""

    BEFORE = "before"
    DURING = "during"
    """From the moment the fault was asked for to the moment healing was."""
    AFTER = "after"


@dataclass(frozen=True)
class Fault:
    """A fault and when it happened, in seconds since the load's start.

    It took effect between `asked` and `done`; what is measured counts from `asked`, which is never too late.
    """

    kind: str
    region: str
    asked: float
    done: float
    heal_asked: float
    heal_done: float | None
    """When the region was well again by its own components' account; None if that was not waited for."""


def phase(moment: float, faults: Sequence[Fault]) -> Phase:
    """The phase of a moment; with several faults, what lies between two is after a fault."""
    begun = [fault for fault in faults if fault.asked <= moment]
    if not begun:
        return Phase.BEFORE
    return Phase.DURING if any(moment < fault.heal_asked for fault in begun) else Phase.AFTER


@dataclass(frozen=True)
class Latency:
    """Latency of the requests that succeeded, in milliseconds; None where there were none."""

    p50: float | None
    p99: float | None
    slowest: float | None


@dataclass(frozen=True)
class Second:
    """One second of the load."""

    second: int
    ok: Mapping[str, int]
    """Requests that succeeded, by region."""
    failed: int
    streams: Mapping[StreamOutcome, int]
    """Streams that ended."""
    latency: Latency


@dataclass(frozen=True)
class Failures:
    """Failures that look alike."""

    message: str
    count: int
    first: float
    """When the first was scheduled (requests) or ended (streams)."""
    example: str
    """Its request id."""


@dataclass(frozen=True)
class Recovery:
    """What one fault did to the requests from then on until the next one."""

    fault: Fault
    rto: float | None
    """Seconds; see `recovery_time`."""
    requests: int
    failed: int
    during: Latency
    """Of those that were scheduled before healing."""


@dataclass(frozen=True)
class Measurement:
    """What the clients saw."""

    requests: int
    requests_failed: int
    streams: Mapping[StreamOutcome, int]
    recoveries: tuple[Recovery, ...]
    """One for each fault."""
    latency: Latency
    phase_latency: Mapping[Phase, Latency]
    lateness: Latency
    """How late the load itself sent, in milliseconds."""
    regions: Mapping[str, Mapping[Phase, int]]
    """Requests that succeeded, by region and phase; without a fault everything is before it."""
    timeline: tuple[Second, ...]
    failures: tuple[Failures, ...]
    stream_failures: tuple[Failures, ...]

    @property
    def rto(self) -> float | None:
        """The longest of all faults, in seconds; None without a fault, and if one was not recovered from."""
        times = [recovery.rto for recovery in self.recoveries]
        return None if None in times else max((time for time in times if time is not None), default=None)


def measure(records: Records, faults: Sequence[Fault] = ()) -> Measurement:
    """Everything that is reported about one load."""
    requests, streams = records.requests, records.streams
    served = [request for request in requests if request.ok]
    return Measurement(
        requests=len(requests),
        requests_failed=len(requests) - len(served),
        streams=_outcomes(streams),
        recoveries=_recoveries(requests, faults),
        latency=latency_of(request.latency for request in served),
        phase_latency={
            each: latency_of(r.latency for r in served if phase(r.scheduled, faults) is each) for each in Phase
        },
        lateness=latency_of(request.lateness for request in requests),
        regions=_regions(served, faults),
        timeline=timeline(records),
        failures=_alike((r.scheduled, r.error, r.id) for r in requests if not r.ok),
        stream_failures=_alike((s.ended, s.error, s.id) for s in streams if s.outcome is not StreamOutcome.COMPLETED),
    )


def _recoveries(requests: Sequence[RequestRecord], faults: Sequence[Fault]) -> tuple[Recovery, ...]:
    """What each fault did, by the requests from it to the next one."""
    found = []
    for number, fault in enumerate(faults):
        end = faults[number + 1].asked if number + 1 < len(faults) else math.inf
        # Those before the first fault belong to it: a failure of theirs is not hidden.
        mine = [each for each in requests if (number == 0 or each.scheduled >= fault.asked) and each.scheduled < end]
        during = [each for each in mine if fault.asked <= each.scheduled < fault.heal_asked]
        found.append(
            Recovery(
                fault,
                recovery_time(mine, fault.asked),
                len(mine),
                sum(not each.ok for each in mine),
                latency_of(each.latency for each in during if each.ok),
            )
        )
    return tuple(found)


def recovery_time(requests: Sequence[RequestRecord], fault_at: float) -> float | None:
    """RTO: seconds from the fault to the first scheduled request from which on every one succeeds.

    0.0 if that moment is not after the fault, as when no request failed; None if the last request failed. A failure
    long after the fault, such as one that healing causes, counts: the service had not recovered for good.
    """
    ordered = sorted(requests, key=lambda request: request.scheduled)
    recovered: float | None = None
    for request in reversed(ordered):
        if not request.ok:
            return None if recovered is None else max(0.0, recovered - fault_at)
        recovered = request.scheduled
    return 0.0


def latency_of(seconds: Iterable[float]) -> Latency:
    """Percentiles in milliseconds, by nearest rank: each is a latency that was observed."""
    ordered = sorted(seconds)
    if not ordered:
        return Latency(None, None, None)

    def rank(share: float) -> float:
        return round(1000 * ordered[max(0, math.ceil(share * len(ordered)) - 1)], 1)

    return Latency(rank(0.50), rank(0.99), rank(1.0))


def timeline(records: Records) -> tuple[Second, ...]:
    """Every second from the load's start to the last record's, empty ones too."""
    moments = [r.scheduled for r in records.requests] + [s.ended for s in records.streams]
    if not moments:
        return ()
    requests: dict[int, list[RequestRecord]] = {}
    streams: dict[int, list[StreamRecord]] = {}
    for request in records.requests:
        requests.setdefault(math.floor(request.scheduled), []).append(request)
    for stream in records.streams:
        streams.setdefault(math.floor(stream.ended), []).append(stream)
    return tuple(
        _second(number, requests.get(number, ()), streams.get(number, ())) for number in range(int(max(moments)) + 1)
    )


def _second(number: int, requests: Sequence[RequestRecord], streams: Sequence[StreamRecord]) -> Second:
    served = [request for request in requests if request.ok]
    ok = Counter(request.region or UNNAMED for request in served)
    latency = latency_of(request.latency for request in served)
    return Second(number, dict(ok), len(requests) - len(served), _outcomes(streams), latency)


def busiest_region(records: Sequence[Record], now: float, window: float = WINDOW_SECONDS) -> str | None:
    """The region that gave most good answers in the last `window` seconds; the first by name of equals."""
    answers = Counter(
        record.region
        for record in records
        if isinstance(record, RequestRecord) and record.ok and record.region and now - window <= record.ended
    )
    return min(answers, key=lambda region: (-answers[region], region), default=None)


def _regions(served: Sequence[RequestRecord], faults: Sequence[Fault]) -> dict[str, dict[Phase, int]]:
    counts = Counter((request.region or UNNAMED, phase(request.scheduled, faults)) for request in served)
    return {name: {each: counts[name, each] for each in Phase} for name in sorted({name for name, _ in counts})}


def _outcomes(streams: Iterable[StreamRecord]) -> dict[StreamOutcome, int]:
    counts = Counter(stream.outcome for stream in streams)
    return {outcome: counts[outcome] for outcome in StreamOutcome}


def _alike(failures: Iterable[tuple[float, str, str]]) -> tuple[Failures, ...]:
    """Failures grouped by message, the most frequent first; each with its first moment and request id."""
    groups: dict[str, list[tuple[float, str]]] = {}
    for moment, message, name in failures:
        groups.setdefault(message, []).append((moment, name))
    found = [Failures(message, len(group), *min(group)) for message, group in groups.items()]
    return tuple(sorted(found, key=lambda failure: (-failure.count, failure.first)))
