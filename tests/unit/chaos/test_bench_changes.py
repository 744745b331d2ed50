"""What the benchmark of changes knows before it starts anything."""

from __future__ import annotations

import json

import pytest

from holdfast.api.route import Route
from holdfast_chaos.bench.benchmark import BenchError
from holdfast_chaos.bench.cases import changes
from holdfast_chaos.bench.many_routes import data, model_of
from holdfast_chaos.bench.ways import regional_options


def test_an_edit_changes_the_models_name_and_nothing_else() -> None:
    options = regional_options([1, 2, 3, 4])
    before, after = (Route.parse(json.loads(data(options, 7, version)["route.json"])) for version in (0, 1))

    assert after.model == model_of(7, 1) != before.model
    assert after.model_copy(update={"model": before.model}) == before


@pytest.mark.parametrize("text", ["0", "many", "-1"])
def test_a_number_of_services_that_makes_no_sense_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(changes.ROUTES, text)

    with pytest.raises(BenchError, match="whole number above 0"):
        changes._routes()
