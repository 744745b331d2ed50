"""From single probes to one observer's verdict, and from the observers' verdicts to that of the majority.

An observer's verdict on a service in a region changes only after probes have agreed for a while, longer for up than
for down. An observer that sees nobody answer takes itself for the blind one. Unknown is not Unhealthy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from holdfast.api.conditions import Reason
from holdfast.api.region import Verdict
from holdfast.api.traffic import ServiceTraffic

ENOUGH_REQUESTS = 10
"""Fewer requests in the window prove nothing by their failures."""
FLOWING_SECONDS = 1.5
"""Tokens that came as lately as this show an engine at work."""


@dataclass(frozen=True)
class Probe:
    """What one probe of a service in one region found."""

    ok: bool
    reason: Reason
    message: str
    least: float = 0.0
    """Seconds for which the failure must last, where that is longer than others have to."""


@dataclass(frozen=True)
class Thresholds:
    """Seconds for which probes must agree."""

    down: float = 2.0
    up: float = 10.0


@dataclass(frozen=True)
class Limits:
    """What a service's traffic may look like."""

    progress_timeout: float = 4.0
    """Seconds for which requests may be at the engines without a token."""
    error_rate: float = 0.5
    """Part of the requests that may fail."""


def complaint(where: str, seen: ServiceTraffic, limits: Limits) -> Probe | None:
    """What users' requests say against a service in one region; None if they say nothing against it.

    Silence is doubted from the half of its time-out on, so that no look comes too late for it: the engine may end it by
    failing its requests, which is a failure as well.
    """
    silent = seen.silent_seconds
    if silent is not None and silent >= limits.progress_timeout / 2:
        message = f"{where} has requests and has generated no token for {silent:.1f} s."
        return Probe(False, Reason.NO_PROGRESS, message, least=limits.progress_timeout)
    if seen.requests >= ENOUGH_REQUESTS and seen.errors >= limits.error_rate * seen.requests:
        message = f"{where} failed {seen.errors} of {seen.requests} requests in the last {seen.window_seconds:.0f} s."
        return Probe(False, Reason.REQUESTS_FAIL, message)
    return None


def generates(seen: ServiceTraffic | None) -> bool:
    """Whether tokens come just now: then a synthetic request that waits is behind others, not at a dead engine."""
    return seen is not None and seen.silent_seconds is not None and seen.silent_seconds < FLOWING_SECONDS


@dataclass(frozen=True)
class Watching:
    """What one observer holds of a service in one region; times of its own monotonic clock, in seconds."""

    verdict: Verdict = Verdict.UNKNOWN
    reason: Reason = Reason.NOT_SEEN_YET
    message: str = "Not probed yet."
    agreeing_since: float | None = None
    """Since when probes say other than the verdict; None while they confirm it."""
    answered: bool = False
    """Whether it was ever seen to answer: what has yet to start is not failing."""


def excused(where: str, probe: Probe, seen: ServiceTraffic | None) -> Probe:
    """What a synthetic request found; one that failed while users get tokens says that the engine is busy."""
    if probe.ok or not generates(seen):
        return probe
    return Probe(True, Reason.ANSWERING, f"{where} is busy and generates.")


def after_probe(
    before: Watching, probe: Probe, now: float, thresholds: Thresholds, began: float | None = None
) -> Watching:
    """The observer's state after one more probe; one that took long speaks for the time since it `began`."""
    said = Verdict.HEALTHY if probe.ok else Verdict.UNHEALTHY
    after = replace(
        before, reason=probe.reason, message=probe.message, agreeing_since=None, answered=before.answered or probe.ok
    )
    if said is before.verdict or not after.answered:
        return after
    first = now if began is None else began
    since = first if before.agreeing_since is None else before.agreeing_since
    at_once = before.verdict is Verdict.UNKNOWN and probe.ok  # it was never seen failing
    if at_once or now - since >= (thresholds.up if probe.ok else max(thresholds.down, probe.least)):
        return replace(after, verdict=said)
    return replace(before, agreeing_since=since)


def blind(latest: Iterable[Probe | None]) -> bool:
    """Whether an observer sees nobody: not one of several regions answers it. One region alone proves nothing."""
    probes = [each for each in latest if each is not None]
    return len(probes) > 1 and not any(each.ok for each in probes)


def closed_eyes(before: Watching, met: str) -> Watching:
    """The state of a blind observer: it knows nothing, and what it saw before does not count. `met` is what it met with
    at one of the regions."""
    blind_before = before.reason is Reason.OBSERVER_BLIND
    message = before.message if blind_before else f"This observer reaches no region at all. {met}"
    return Watching(Verdict.UNKNOWN, Reason.OBSERVER_BLIND, message, answered=before.answered)


def restored(verdict: Verdict, reason: Reason, message: str) -> Watching:
    """The state as it was published before the observer was started again."""
    return Watching(verdict, reason, message, answered=verdict is not Verdict.UNKNOWN)


@dataclass(frozen=True)
class Judgement:
    """What the majority of observers holds of a service in one region."""

    verdict: Verdict
    reason: Reason
    message: str


def judge(region: str, views: Mapping[str, Watching], voters: int) -> Judgement:
    """The majority's verdict; `views` maps each observer that is heard to what it holds, of `voters` in all."""
    quorum = voters // 2 + 1
    counts = Counter(view.verdict for view in views.values())
    heard = ", ".join(f"{observer} {view.verdict}" for observer, view in sorted(views.items())) or "nobody"
    if counts[Verdict.UNHEALTHY] >= quorum:
        failing = [view for _, view in sorted(views.items()) if view.verdict is Verdict.UNHEALTHY]
        reason, said = Counter((view.reason, view.message) for view in failing).most_common(1)[0][0]
        number = f"{counts[Verdict.UNHEALTHY]} of {voters} observers"
        return Judgement(Verdict.UNHEALTHY, reason, f"{number} see {region} fail: {said}")
    if counts[Verdict.HEALTHY] >= quorum:
        number = f"{counts[Verdict.HEALTHY]} of {voters} observers"
        return Judgement(Verdict.HEALTHY, Reason.ANSWERING, f"{number} see {region} answer.")
    return Judgement(
        Verdict.UNKNOWN, Reason.NOT_SEEN_YET, f"No majority of {voters} observers agrees on {region}: {heard}."
    )
