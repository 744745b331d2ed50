"""Which of several orders for a region holds."""

from __future__ import annotations

import pytest

from holdfast.api import names
from holdfast.domain.failover import Order
from holdfast.domain.orders import order

EARLY, LATE = "2026-01-01T12:00:00Z", "2026-01-01T12:00:00.5+00:00"
D, U, OVERRIDE = names.DRAIN_ANNOTATION, names.UNDRAIN_ANNOTATION, names.OVERRIDE_ANNOTATION


@pytest.mark.parametrize(
    ("annotations", "drained"),
    [
        ([], False),
        ([{}], False),
        ([{D: EARLY}], True),
        ([{D: EARLY, U: LATE}], False),
        ([{D: LATE, U: EARLY}], True),
        ([{D: EARLY}, {U: LATE}], False),
        ([{D: LATE}, {U: EARLY}], True),
        ([{D: EARLY, U: EARLY}], True),
        ([{U: LATE}], False),
        ([{D: "true"}, {U: LATE}], True),
        ([{D: "yesterday"}], False),
        ([{D: "2026-01-01T12:00:00"}], True),
    ],
)
def test_the_latest_order_of_all_clusters_holds(annotations: list[dict[str, str]], drained: bool) -> None:
    assert order(annotations).drain is drained


def test_an_override_in_any_cluster_counts() -> None:
    assert order([{D: EARLY}, {OVERRIDE: "true"}]) == Order(drain=True, override=True)
