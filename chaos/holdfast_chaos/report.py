"""Turns one measured run into its report: JSON for programs and the verdict's sentence for people. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .client import LoadSpec
from .load_process import LoadCost
from .measure import Failures, Latency, Measurement, Phase, Recovery, Second
from .records import StreamOutcome

Json = dict[str, Any]

SAMPLES = 20
"""Kinds of failures that a report lists."""
PAST = {"kill": "was killed", "freeze": "froze", "cut": "was cut off"}


@dataclass(frozen=True)
class Run:
    """One load with all that is known about it."""

    spec: LoadSpec
    measured: Measurement
    cost: LoadCost
    started: datetime
    ended: datetime
    versions: Mapping[str, str]

    @property
    def passed(self) -> bool:
        """Whether no request failed and every stream was completed."""
        streams = self.measured.streams
        return self.measured.requests_failed == 0 and sum(streams.values()) == streams[StreamOutcome.COMPLETED]


def verdict(run: Run) -> str:
    """The result in one sentence."""
    measured = run.measured
    event = _event(measured.recoveries)
    failed = f"{measured.requests_failed:,}" if measured.requests_failed else "none"
    cut = measured.streams[StreamOutcome.TRUNCATED] + measured.streams[StreamOutcome.FAILED]
    all_streams = sum(measured.streams.values())
    streams = f"{cut:,} of {all_streams:,} streams were cut or never began" if cut else "no stream was cut"
    sentence = f"{event}{failed} of {measured.requests:,} requests failed, {streams}."
    return sentence if event else sentence[0].upper() + sentence[1:]


def _event(recoveries: Sequence[Recovery]) -> str:
    if not recoveries:
        return ""
    if len(recoveries) == 1:
        fault = recoveries[0].fault
        return f"{fault.region} {PAST.get(fault.kind, fault.kind)}: "
    kinds = Counter(recovery.fault.kind for recovery in recoveries)
    return f"{len(recoveries)} faults ({', '.join(f'{count} × {kind}' for kind, count in kinds.items())}): "


def report_json(run: Run) -> Json:
    """The report as it is written to `report.json`. Times in seconds since the load's start."""
    measured = run.measured
    return {
        "requests": {
            "total": measured.requests,
            "ok": measured.requests - measured.requests_failed,
            "failed": measured.requests_failed,
        },
        "streams": {"total": sum(measured.streams.values()), **_by_value(measured.streams)},
        "rto_seconds": None if measured.rto is None else round(measured.rto, 3),
        "latency_ms": {
            **_latency(measured.latency),
            **{
                phase.value: _latency(latency)
                for phase, latency in measured.phase_latency.items()
                if measured.recoveries
            },
        },
        "regions": {name: {phase.value: counts[phase] for phase in Phase} for name, counts in measured.regions.items()},
        "timeline": [_second(second) for second in measured.timeline],
        "failures": [_failures(group) for group in measured.failures[:SAMPLES]],
        "stream_failures": [_failures(group) for group in measured.stream_failures[:SAMPLES]],
        "faults": [_recovery(recovery) for recovery in measured.recoveries],
        "load": _load(run),
        "times": {"started": run.started.isoformat(), "ended": run.ended.isoformat()},
        "versions": dict(run.versions),
    }


def _by_value(streams: Mapping[StreamOutcome, int]) -> Json:
    return {outcome.value: streams[outcome] for outcome in StreamOutcome}


def _latency(latency: Latency) -> Json:
    return {"p50": latency.p50, "p99": latency.p99, "slowest": latency.slowest}


def _second(second: Second) -> Json:
    return {
        "second": second.second,
        "ok": dict(second.ok),
        "failed": second.failed,
        "streams": _by_value(second.streams),
        "latency_ms": _latency(second.latency),
    }


def _failures(group: Failures) -> Json:
    return {
        "message": group.message,
        "count": group.count,
        "first_seconds": round(group.first, 3),
        "request_id": group.example,
    }


def _recovery(recovery: Recovery) -> Json:
    fault = recovery.fault
    return {
        "kind": fault.kind,
        "region": fault.region,
        "asked_seconds": round(fault.asked, 3),
        "done_seconds": round(fault.done, 3),
        "heal_asked_seconds": round(fault.heal_asked, 3),
        "heal_done_seconds": None if fault.heal_done is None else round(fault.heal_done, 3),
        "rto_seconds": None if recovery.rto is None else round(recovery.rto, 3),
        "requests": recovery.requests,
        "failed": recovery.failed,
        "latency_ms": _latency(recovery.during),
    }


def _load(run: Run) -> Json:
    spec = run.spec
    return {
        "url": spec.url,
        "model": spec.model,
        "rate": spec.rate,
        "seconds": spec.seconds,
        "streams": spec.streams,
        "seed": spec.seed,
        "lateness_ms": _latency(run.measured.lateness),
        "cpu_percent": round(run.cost.cpu_percent, 1),
    }
