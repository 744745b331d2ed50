"""What streams under faults came to, for programs and for people. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast_chaos.streams.compare import Difference, compare
from holdfast_chaos.streams.experiment import Fault, Outcome

Json = dict[str, Any]
NEAR_SECONDS = 15.0
"""A pause that ends so soon after a fault belongs to it."""


def report(outcome: Outcome) -> Json:
    """Counts, and pauses in milliseconds; by the fault that came last before each."""
    differences = [compare(each.received, outcome.undisturbed[each.question]) for each in outcome.ended]
    resumed = [each for each in outcome.ended if each.received.resumed_after]
    pauses = _pauses(outcome)
    every = [pause for found in pauses.values() for pause in found]
    return {
        "streams": len(outcome.ended),
        "exact": sum(each.exact for each in differences),
        "lost_tokens": sum(each.lost for each in differences),
        "doubled_tokens": sum(each.doubled for each in differences),
        "not_completed": sum(not each.received.done for each in outcome.ended),
        "wrong": _wrong(differences),
        "tokens": sum(len(each.received.token_ids) for each in outcome.ended),
        "streams_resumed": len(resumed),
        "resumes": sum(len(each.received.resumed_after) for each in resumed),
        "most_resumes_of_one_stream": max((len(each.received.resumed_after) for each in resumed), default=0),
        "faults": dict(Counter(fault.kind for fault in outcome.faults)),
        "pause_ms": {"all": _summary(every), **{kind: _summary(found) for kind, found in sorted(pauses.items())}},
    }


def passed(content: Json) -> bool:
    """Whether every stream was exact, and faults were survived at all."""
    return bool(content["exact"] == content["streams"] and content["streams"] and content["resumes"])


def _pauses(outcome: Outcome) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for each in outcome.ended:
        for began, pause in each.received.pauses():
            found.setdefault(_cause(outcome.faults, began, pause), []).append(pause)
    return found


def _cause(faults: Sequence[Fault], began: float, pause: float) -> str:
    """The fault that lasted when the pause ended, or had begun shortly before."""
    ended = began + pause
    before = [fault for fault in faults if fault.at <= ended <= max(fault.at + NEAR_SECONDS, fault.healed)]
    return before[-1].kind if before else "other"


def _summary(pauses: Sequence[float]) -> Json:
    if not pauses:
        return {"count": 0, "p50": None, "p99": None, "longest": None}
    p50, p99 = (round(1000 * float(value), 1) for value in np.percentile(pauses, [50, 99]))
    return {"count": len(pauses), "p50": p50, "p99": p99, "longest": round(1000 * max(pauses), 1)}


def _wrong(differences: Sequence[Difference]) -> dict[str, int]:
    return dict(Counter(each.wrong for each in differences if each.wrong).most_common())


def lines(content: Json) -> list[str]:
    """The report for people."""
    pauses = [
        f"  {name:8} {each['count']:5} times   p50 {each['p50']:,.0f} ms   p99 {each['p99']:,.0f} ms   "
        f"longest {each['longest']:,.0f} ms"
        for name, each in content["pause_ms"].items()
        if each["count"]
    ]
    return [
        f"streams      {content['streams']:,}, of {content['tokens']:,} tokens; {content['exact']:,} exact",
        f"tokens       {content['lost_tokens']} lost, {content['doubled_tokens']} doubled",
        f"not complete {content['not_completed']}",
        f"faults       {', '.join(f'{count} × {kind}' for kind, count in content['faults'].items()) or 'none'}",
        f"resumed      {content['streams_resumed']:,} streams, {content['resumes']:,} times, one of them "
        f"{content['most_resumes_of_one_stream']} times",
        "pauses, from the last token of a lost engine to the first of the next",
        *pauses,
        *(f"wrong        {count} × {wrong}" for wrong, count in content["wrong"].items()),
    ]
