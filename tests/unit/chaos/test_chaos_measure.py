"""The measurement, on hand-made stories and on any records at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.chaos.chaos_stories import answered, killed, lost, steady, stream

from holdfast_chaos.measure import (
    UNNAMED,
    Latency,
    Phase,
    busiest_region,
    latency_of,
    measure,
    recovery_time,
    timeline,
)
from holdfast_chaos.records import Records, RequestRecord, StreamOutcome

MOMENTS = st.floats(0, 60, allow_nan=False)
REQUESTS = st.lists(
    st.builds(
        lambda at, seconds, region, error: RequestRecord("r", at, at, at + seconds, 3, region, error),
        MOMENTS,
        st.floats(0, 40, allow_nan=False),
        st.sampled_from(["us-east", "eu-west", ""]),
        st.sampled_from(["", "", "", "status 503"]),
    ),
    max_size=60,
).map(lambda requests: tuple(sorted(requests, key=lambda request: request.scheduled)))
STREAMS = st.lists(st.builds(stream, MOMENTS, st.sampled_from(StreamOutcome)), max_size=20).map(tuple)


def test_without_failures_the_rto_is_zero() -> None:
    assert recovery_time(steady(10), 2.0) == 0.0


def test_one_failed_request_gives_the_time_until_the_next_that_succeeds() -> None:
    requests = [*steady(3), lost(3.0), answered(3.5), answered(4.0)]

    assert recovery_time(requests, fault_at=2.75) == pytest.approx(0.75)


def test_a_request_lost_long_after_the_fault_delays_recovery() -> None:
    requests = [lost(2.0), *(answered(2.5 + number) for number in range(5)), lost(8.0), answered(9.0)]

    assert recovery_time(requests, fault_at=2.0) == pytest.approx(7.0)


def test_a_failed_last_request_means_not_recovered() -> None:
    assert recovery_time([*steady(5), lost(5.0)], fault_at=2.0) is None


def test_the_order_in_which_answers_came_does_not_matter() -> None:
    requests = [answered(1.0), lost(2.0, seconds=30.0), answered(3.0), answered(4.0)]

    assert recovery_time(list(reversed(requests)), 1.5) == recovery_time(requests, 1.5) == pytest.approx(1.5)


def test_a_request_sent_late_counts_as_slow() -> None:
    late = answered(1.0, seconds=0.1)
    late = replace(late, sent=late.sent + 2, ended=late.ended + 2)
    measured = measure(Records((late,)))

    assert measured.latency.slowest == pytest.approx(2100)
    assert measured.lateness.slowest == pytest.approx(2000)


def test_failed_requests_have_no_part_in_latency() -> None:
    measured = measure(Records((answered(1.0, seconds=0.2), lost(2.0, seconds=30.0))))

    assert measured.latency.slowest == pytest.approx(200)


def test_requests_are_counted_in_the_phase_they_were_scheduled_in() -> None:
    requests = (answered(1.9, seconds=5), answered(2.0, "eu-west"), answered(3.9, "eu-west"), answered(4.0, ""))
    measured = measure(Records(requests), [killed(asked=2.0, heal=4.0)])

    assert measured.regions == {
        "us-east": {Phase.BEFORE: 1, Phase.DURING: 0, Phase.AFTER: 0},
        "eu-west": {Phase.BEFORE: 0, Phase.DURING: 2, Phase.AFTER: 0},
        UNNAMED: {Phase.BEFORE: 0, Phase.DURING: 0, Phase.AFTER: 1},
    }


def test_truncated_streams_are_counted_and_shown_in_the_second_of_their_end() -> None:
    streams = (stream(6.0), stream(7.25, StreamOutcome.TRUNCATED), stream(7.5, StreamOutcome.FAILED))
    measured = measure(Records((), streams), [killed()])

    assert measured.streams == {
        StreamOutcome.COMPLETED: 1,
        StreamOutcome.TRUNCATED: 1,
        StreamOutcome.FAILED: 1,
    }
    assert measured.timeline[7].streams[StreamOutcome.TRUNCATED] == 1
    assert sum(failure.count for failure in measured.stream_failures) == 2


def test_failures_that_look_alike_are_one_entry_with_the_first_as_example() -> None:
    requests = (lost(1.0, "status 503"), lost(2.0, "status 503"), lost(3.0, "no answer in time"))
    first, second = measure(Records(requests)).failures

    assert (first.message, first.count, first.first, first.example) == ("status 503", 2, 1.0, "request-1")
    assert second.message == "no answer in time"


def test_percentiles_are_values_that_occurred() -> None:
    assert latency_of(number / 1000 for number in range(1, 101)) == Latency(50.0, 99.0, 100.0)
    assert latency_of([0.5]) == Latency(500.0, 500.0, 500.0)
    assert latency_of([]) == Latency(None, None, None)


def test_the_busiest_region_is_the_one_that_answered_most_lately() -> None:
    records = [answered(number * 0.1, "us-east") for number in range(50)]
    records += [answered(17 + number * 0.1, "eu-west") for number in range(20)]
    records += [answered(17 + number * 0.2, "us-east") for number in range(10)]

    assert busiest_region(records, now=19.0) == "eu-west"


def test_without_a_named_answer_no_region_is_busiest() -> None:
    assert busiest_region([answered(1.0, ""), lost(1.0), stream(2.0)], now=2.0) is None


@given(REQUESTS, STREAMS)
def test_every_record_is_counted_exactly_once(requests: tuple[RequestRecord, ...], streams: tuple) -> None:
    measured = measure(Records(requests, streams), [killed(asked=20, heal=40)])
    answers = sum(sum(counts.values()) for counts in measured.regions.values())
    seconds = measured.timeline

    assert answers + measured.requests_failed == measured.requests == len(requests)
    assert sum(measured.streams.values()) == len(streams)
    assert sum(sum(second.ok.values()) + second.failed for second in seconds) == len(requests)
    assert sum(sum(second.streams.values()) for second in seconds) == len(streams)
    assert [second.second for second in timeline(Records(requests, streams))] == list(range(len(seconds)))


def test_each_of_several_faults_is_measured_by_the_requests_until_the_next() -> None:
    faults = [killed(asked=2.0, heal=4.0), killed(asked=6.0, heal=8.0)]
    requests = (*steady(6), lost(6.5), *(answered(7 + number) for number in range(5)))
    measured = measure(Records(requests), faults)
    assert [(each.requests, each.failed, each.rto) for each in measured.recoveries] == [(12, 0, 0.0), (6, 1, 1.0)]
    assert measured.rto == 1.0
    assert sum(measured.regions["us-east"].values()) == 17
    assert measured.regions["us-east"][Phase.AFTER] == 4 + 4, "between the faults, and after the last"


def test_a_fault_that_was_not_recovered_from_leaves_no_rto_however_well_others_went() -> None:
    faults = [killed(asked=2.0, heal=3.0), killed(asked=4.0, heal=5.0)]
    measured = measure(Records((*steady(3), lost(3.5), *(answered(4 + number) for number in range(3)))), faults)
    assert [each.rto for each in measured.recoveries] == [None, 0.0]
    assert measured.rto is None


@given(REQUESTS, MOMENTS)
def test_from_the_recovery_on_every_request_succeeds(requests: tuple[RequestRecord, ...], fault_at: float) -> None:
    rto = recovery_time(requests, fault_at)
    if rto is None:
        assert not requests[-1].ok
    else:
        after = [request for request in requests if request.scheduled > fault_at + rto + 1e-9]
        assert all(request.ok for request in after)


@given(REQUESTS.filter(lambda requests: any(not request.ok for request in requests)), MOMENTS)
def test_no_failure_is_hidden_by_the_rto(requests: tuple[RequestRecord, ...], fault_at: float) -> None:
    rto = recovery_time(requests, fault_at)
    last = max(request.scheduled for request in requests if not request.ok)

    assert rto is None or fault_at + rto >= last - 1e-9


@given(st.lists(st.floats(0, 100, allow_nan=False), min_size=1))
def test_percentiles_never_exceed_the_slowest(seconds: list[float]) -> None:
    latency = latency_of(seconds)

    assert latency.p50 is not None
    assert latency.p99 is not None
    assert latency.slowest is not None
    assert latency.p50 <= latency.p99 <= latency.slowest
