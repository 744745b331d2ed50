"""Reading the service that the demo applies, and when a region counts as serving."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdfast.api.conditions import Condition, ConditionStatus, ConditionType, Reason
from holdfast_chaos.errors import ServiceError
from holdfast_chaos.ready import default_service
from holdfast_chaos.service import is_serving, read_service


def available(status: ConditionStatus, reason: Reason) -> Condition:
    return Condition(
        type=ConditionType.AVAILABLE,
        status=status,
        reason=reason,
        message="",
        observed_generation=1,
        last_transition_time=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_the_projects_example_can_be_read() -> None:
    service = read_service(default_service())

    assert (service.namespace, service.name, service.model) == ("default", "chat", "tiny-llama")


@pytest.mark.parametrize("text", ["", "[]", "kind: Region\nmetadata: {name: a}", "kind: LLMService\nmetadata: {}", "{"])
def test_what_is_no_service_is_refused_with_the_files_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text(text)

    with pytest.raises(ServiceError, match=r"service\.yaml"):
        read_service(tmp_path / "service.yaml")


@pytest.mark.parametrize(
    ("conditions", "serving"),
    [
        ([], False),
        ([available(ConditionStatus.TRUE, Reason.SERVING)], True),
        ([available(ConditionStatus.TRUE, Reason.SERVED_ELSEWHERE)], False),
        ([available(ConditionStatus.FALSE, Reason.NO_ENGINE_READY)], False),
    ],
)
def test_a_region_serves_only_with_engines_of_its_own(conditions: list[Condition], serving: bool) -> None:
    assert is_serving(conditions) is serving
