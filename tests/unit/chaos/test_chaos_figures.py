"""What is computed of a control plane's measurements."""

from __future__ import annotations

import pytest

from holdfast_chaos.bench.figures import (
    Event,
    Figure,
    figure_table,
    first,
    grown,
    held_by,
    mean_grown,
    parse_metrics,
    planned,
    traffic_is,
)

TEXT = """\
# HELP holdfast_writes_total Writes to the API server, by kind.
# TYPE holdfast_writes_total counter
holdfast_writes_total{kind="ConfigMap"} 3.0
holdfast_writes_total{kind="RegionPlan"} 2.0
holdfast_lag_count 4.0
holdfast_lag_sum 1.0
holdfast_leading 1.0
"""


def test_a_figure_says_its_median_its_worst_and_whether_the_aim_was_reached() -> None:
    figure = Figure("hand-over", (1.0, 4.0, 2.0), aim=3.0)

    found = figure.as_json()

    assert (found["median"], found["worst"], found["reached"]) == (2.0, 4.0, False)
    assert figure_table("t", [figure]).rows == [["hand-over", "3", "2.00 s", "4.00 s", "≤ 3 s"]]


def test_a_figure_that_was_not_measured_is_dashes() -> None:
    assert figure_table("t", [Figure("mean", ())]).rows == [["mean", "0", "–", "–", "–"]]
    assert Figure("mean", (), aim=1.0).as_json()["reached"] is None


def test_counters_are_summed_over_operators_and_what_did_not_grow_is_left_out() -> None:
    before = parse_metrics(TEXT)
    after = before | {'holdfast_writes_total{kind="ConfigMap"}': 5.0}

    found = grown({"a": before, "b": before}, {"a": after, "b": after}, "holdfast_writes_total")

    assert found == {"ConfigMap": 4.0}


def test_a_counter_of_an_operator_that_was_not_asked_before_counts_whole() -> None:
    assert grown({}, {"a": parse_metrics(TEXT)}, "holdfast_writes_total") == {"ConfigMap": 3.0, "RegionPlan": 2.0}


def test_a_histograms_mean_is_that_of_what_came_in_between() -> None:
    before = parse_metrics(TEXT)
    after = before | {"holdfast_lag_count": 6.0, "holdfast_lag_sum": 2.0}

    assert mean_grown({"a": before}, {"a": after}, "holdfast_lag") == pytest.approx(0.5)
    assert mean_grown({"a": before}, {"a": before}, "holdfast_lag") is None


def test_the_first_change_that_passes_counts_for_each_region() -> None:
    def plan(at: float, region: str, number: int, name: str = "bench") -> Event:
        return Event(at, region, "RegionPlan", name, {"spec": {"number": number}})

    events = [plan(1, "a", 1), plan(2, "b", 2), plan(2.5, "a", 3, "other"), plan(3, "a", 2), plan(4, "a", 2)]

    assert first(events, "RegionPlan", "bench", planned(2)) == {"b": 2, "a": 3}


@pytest.mark.parametrize(
    ("replication", "expected"),
    [
        ({"number": 2, "holders": ["a", "b"]}, True),
        ({"number": 3, "holders": ["a", "b", "c"]}, True),
        ({"number": 2, "holders": ["a"]}, False),
        ({"number": 1, "holders": ["a", "b", "c"]}, False),
        ({}, False),
    ],
)
def test_a_majority_holds_an_edit_once_the_status_says_so(replication: dict[str, object], expected: bool) -> None:
    assert held_by(2, 2)({"status": {"replication": replication}}) is expected


def test_a_plan_drains_only_the_regions_that_it_names_so() -> None:
    traffic = [{"region": "a", "state": "Drained"}, {"region": "b", "state": "Serving"}]

    assert traffic_is("a", "Drained")({"spec": {"traffic": traffic}})
    assert not traffic_is("b", "Drained")({"spec": {"traffic": traffic}})
    assert not traffic_is("c", "Drained")({"spec": {"traffic": traffic}})
