"""What the conditions say in the situations that a person meets."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from holdfast.api.conditions import Condition, ConditionType, Reason
from holdfast.api.llmservice import LLMServiceStatus
from holdfast.domain.decide import decide
from holdfast.domain.manifests import manifests
from holdfast.domain.observation import EnginePod, Observation, Ref
from holdfast.domain.plan import plan_alone
from holdfast.domain.status import CAUSES, is_bad, status, transitions, unreadable
from holdfast_engine.causes import CauseReason


def deployment(replicas: int, ready: int, updated: int | None = None, **meta: int) -> dict[Ref, Any]:
    """The engines' Deployment with these counts."""
    counts = {"replicas": replicas, "readyReplicas": ready, "updatedReplicas": replicas if updated is None else updated}
    return {
        Ref("Deployment", "default", "chat-engine"): {
            "metadata": {"generation": meta.get("generation", 1)},
            "spec": {"replicas": replicas},
            "status": {**counts, "observedGeneration": meta.get("observed", 1)},
        }
    }


def report(seen: Observation, failures: tuple[str, ...] = ()) -> LLMServiceStatus:
    decision = decide(seen)
    return status(seen, decision, failures)


def condition(of: LLMServiceStatus, kind: ConditionType) -> Condition:
    return next(each for each in of.conditions if each.type == kind)


def said(of: LLMServiceStatus, kind: ConditionType) -> tuple[str, str]:
    found = condition(of, kind)
    return found.status, found.reason


def test_a_service_whose_engines_are_all_ready_is_available_and_settled(observe: Any) -> None:
    result = report(observe(seen={"children": deployment(2, 2)}))

    assert said(result, ConditionType.ACCEPTED) == ("True", Reason.ACCEPTED)
    assert said(result, ConditionType.AVAILABLE) == ("True", Reason.SERVING)
    assert said(result, ConditionType.PROGRESSING) == ("False", Reason.SETTLED)
    assert said(result, ConditionType.DEGRADED) == ("False", Reason.ALL_ENGINES_READY)
    assert (result.replicas, result.ready_replicas) == (2, 2)
    assert all(each.observed_generation == 3 for each in result.conditions)


def test_one_ready_engine_of_two_is_available_but_degraded(observe: Any) -> None:
    result = report(observe(seen={"children": deployment(2, 1)}))

    assert said(result, ConditionType.AVAILABLE) == ("True", Reason.SERVING)
    assert said(result, ConditionType.PROGRESSING) == ("True", Reason.STARTING_ENGINES)
    assert said(result, ConditionType.DEGRADED) == ("True", Reason.ENGINES_MISSING)


WARM = {"replicas": {"min": 2}, "warm": 1}


def test_a_ready_engine_that_is_kept_warm_counts_as_one_that_takes_no_requests(observe: Any) -> None:
    result = report(observe(defaults=WARM, seen={"children": deployment(3, 3)}))

    assert (result.replicas, result.ready_replicas, result.warm_replicas) == (3, 2, 1)
    assert condition(result, ConditionType.AVAILABLE).message == (
        "2 engines in us-east ready to take requests, 1 more kept warm."
    )
    assert said(result, ConditionType.DEGRADED) == ("False", Reason.ALL_ENGINES_READY)


def test_a_warm_engine_that_is_missing_is_told_and_the_routed_ones_are_counted_first(observe: Any) -> None:
    result = report(observe(defaults=WARM, seen={"children": deployment(3, 2)}))

    assert (result.ready_replicas, result.warm_replicas) == (2, 0)
    assert said(result, ConditionType.PROGRESSING) == ("True", Reason.STARTING_ENGINES)
    assert said(result, ConditionType.DEGRADED) == ("True", Reason.ENGINES_MISSING)


def test_a_refused_spec_leaves_the_warm_engines_warm_in_the_count_as_well(observe: Any) -> None:
    seen = observe(defaults=WARM)
    told = {Ref.of(each): each for each in manifests(seen, plan_alone(seen)) if each["kind"] == "ConfigMap"}

    result = report(observe(engine={"type": "warp"}, seen={"children": told | deployment(3, 3)}))
    broken = report(
        observe(engine={"type": "warp"}, seen={"children": {ref: {"data": None} for ref in told} | deployment(3, 3)})
    )

    assert (result.ready_replicas, result.warm_replicas) == (2, 1)
    assert (broken.ready_replicas, broken.warm_replicas) == (3, 0)


def test_no_ready_engine_is_not_available(observe: Any) -> None:
    result = report(observe(seen={"children": deployment(2, 0)}))

    assert said(result, ConditionType.AVAILABLE) == ("False", Reason.NO_ENGINE_READY)


def test_a_region_that_the_service_leaves_out_forwards(observe: Any) -> None:
    result = report(observe(regions=[{"name": "eu-west"}]))

    assert said(result, ConditionType.AVAILABLE) == ("True", Reason.SERVED_ELSEWHERE)
    assert said(result, ConditionType.DEGRADED) == ("False", Reason.ALL_ENGINES_READY)
    assert "eu-west" in condition(result, ConditionType.AVAILABLE).message


def test_a_template_that_the_cluster_has_not_yet_taken_up_is_a_replacement(observe: Any) -> None:
    result = report(observe(seen={"children": deployment(2, 2, generation=2, observed=1)}))

    assert said(result, ConditionType.PROGRESSING) == ("True", Reason.REPLACING_ENGINES)


def test_engines_of_an_old_revision_are_a_replacement(observe: Any) -> None:
    result = report(observe(seen={"children": deployment(3, 2, updated=1)}))

    assert said(result, ConditionType.PROGRESSING) == ("True", Reason.REPLACING_ENGINES)


def test_the_most_fundamental_trouble_of_an_engine_is_named(observe: Any) -> None:
    crashing = EnginePod("a", False, "r", waiting="CrashLoopBackOff", restarts=5, last_exit="OOMKilled (exit code 137)")
    unschedulable = EnginePod("b", False, "r", message="0/1 nodes: 1 Insufficient nvidia.com/gpu.", unschedulable=True)
    no_image = EnginePod("c", False, "r", waiting="ImagePullBackOff", message="back-off")

    for pods, reason, words in (
        ((crashing,), Reason.ENGINE_CRASHING, "OOMKilled"),
        ((crashing, no_image), Reason.ENGINE_IMAGE_UNAVAILABLE, "ImagePullBackOff"),
        ((crashing, no_image, unschedulable), Reason.ENGINE_UNSCHEDULABLE, "Insufficient nvidia.com/gpu"),
    ):
        result = report(observe(seen={"children": deployment(2, 0), "pods": pods}))
        assert said(result, ConditionType.DEGRADED) == ("True", reason)
        assert words in condition(result, ConditionType.DEGRADED).message


CORRUPT = "ModelCorrupt: expected 11, found 22 at /models/m.gguf; put the right files there"


def test_an_engine_that_refuses_its_model_is_told_in_its_own_words(observe: Any) -> None:
    corrupt = EnginePod("a", False, "r", "CrashLoopBackOff", restarts=5, last_exit="Error", last_words=CORRUPT)
    pods = (EnginePod("0", False, "r", waiting="CrashLoopBackOff", restarts=5), corrupt)

    nothing = report(observe(seen={"children": deployment(2, 0), "pods": pods}))
    half = report(observe(seen={"children": deployment(2, 1), "pods": pods}))

    words = "Engine a refuses its model: expected 11, found 22 at /models/m.gguf; put the right files there"
    for kind, result in (
        (ConditionType.DEGRADED, nothing),
        (ConditionType.AVAILABLE, nothing),
        (ConditionType.DEGRADED, half),
    ):
        assert condition(result, kind).reason == Reason.MODEL_CORRUPT
        assert condition(result, kind).message == words
    assert said(nothing, ConditionType.AVAILABLE) == ("False", Reason.MODEL_CORRUPT)
    assert said(half, ConditionType.AVAILABLE) == ("True", Reason.SERVING)


def test_an_engine_that_once_refused_its_model_and_is_ready_is_no_trouble(observe: Any) -> None:
    mended = EnginePod("a", True, "r", restarts=1, last_words=CORRUPT)

    result = report(observe(seen={"children": deployment(2, 2), "pods": (mended,)}))

    assert said(result, ConditionType.DEGRADED) == ("False", Reason.ALL_ENGINES_READY)


@pytest.mark.parametrize("cause", [Reason(cause) for cause in CauseReason])
def test_the_cause_of_an_engines_end_is_the_reason_with_its_sentence(observe: Any, cause: Reason) -> None:
    ended = EnginePod("a", False, "r", restarts=1, last_exit="Error", last_words=f"{cause}: this: is why")
    again = EnginePod("b", False, "r", waiting="CrashLoopBackOff", restarts=5, last_exit="Error")

    result = report(observe(seen={"children": deployment(2, 0), "pods": (again, ended)}))

    for kind, value in ((ConditionType.DEGRADED, "True"), (ConditionType.AVAILABLE, "False")):
        assert said(result, kind) == (value, cause)
        assert condition(result, kind).message == f"Engine a {CAUSES[cause]}: this: is why"
    assert {each.reason for each in transitions((), result.conditions) if is_bad(each)} == {cause}


def test_what_never_mends_itself_is_told_before_what_may(observe: Any) -> None:
    killed = EnginePod("a", False, "r", restarts=1, last_words="Killed: Ended by signal 9.")
    missing = EnginePod("b", False, "r", restarts=1, last_words="ModelNotFound: no such repository")

    result = report(observe(seen={"children": deployment(2, 0), "pods": (killed, missing)}))

    assert said(result, ConditionType.DEGRADED) == ("True", Reason.MODEL_NOT_FOUND)


def test_a_crash_is_told_with_the_engines_last_words(observe: Any) -> None:
    crashing = EnginePod("a", False, "r", restarts=3, last_exit="Error (exit code 66)", last_words="bus error")

    result = report(observe(seen={"children": deployment(2, 0), "pods": (crashing,)}))

    assert said(result, ConditionType.DEGRADED) == ("True", Reason.ENGINE_CRASHING)
    assert condition(result, ConditionType.DEGRADED).message.endswith("Error (exit code 66): bus error")


def test_a_crash_long_ago_of_an_engine_that_is_ready_is_no_trouble(observe: Any) -> None:
    recovered = EnginePod("a", True, "r", restarts=9)

    result = report(observe(seen={"children": deployment(2, 2), "pods": (recovered,)}))

    assert said(result, ConditionType.DEGRADED) == ("False", Reason.ALL_ENGINES_READY)


def test_writes_that_failed_are_told(observe: Any) -> None:
    result = report(observe(seen={"children": deployment(2, 2)}), ("Service chat-engine could not be written: no.",))

    assert said(result, ConditionType.DEGRADED) == ("True", Reason.APPLY_FAILED)


def test_a_refused_spec_still_tells_how_what_runs_is_doing(observe: Any) -> None:
    result = report(observe(engine={"type": "warp"}, seen={"children": deployment(2, 2)}))

    assert said(result, ConditionType.ACCEPTED) == ("False", Reason.UNKNOWN_ENGINE)
    assert said(result, ConditionType.AVAILABLE) == ("True", Reason.SERVING)


def test_the_transition_time_moves_only_with_the_status(observe: Any) -> None:
    seen = observe(seen={"children": deployment(2, 0)})
    first = report(seen)
    later = replace(seen, now=seen.now + timedelta(minutes=5))

    same = report(replace(later, service=later.service.model_copy(update={"status": first})))
    flipped = report(
        replace(later, children=deployment(2, 1), service=later.service.model_copy(update={"status": first}))
    )

    assert condition(same, ConditionType.AVAILABLE).last_transition_time == seen.now
    assert condition(flipped, ConditionType.AVAILABLE).last_transition_time == later.now
    assert transitions(first.conditions, same.conditions) == []
    assert [each.type for each in transitions(first.conditions, flipped.conditions)] == [ConditionType.AVAILABLE]


def test_of_a_new_service_only_its_acceptance_and_what_is_wrong_is_news(observe: Any) -> None:
    fine = report(observe(seen={"children": deployment(2, 0)}))
    broken = report(observe(seen={"children": deployment(2, 0)}), failures=("The Deployment was refused.",))

    assert [each.reason for each in transitions((), fine.conditions)] == [Reason.ACCEPTED]
    assert [each.reason for each in transitions((), broken.conditions)] == [Reason.ACCEPTED, Reason.APPLY_FAILED]


def test_a_status_survives_the_way_through_an_api_server(observe: Any) -> None:
    result = report(observe(seen={"children": deployment(2, 1)}))

    assert LLMServiceStatus.parse(result.wire()) == result


def test_a_spec_that_cannot_be_read_leaves_the_other_conditions_alone(observe: Any) -> None:
    before = report(observe(seen={"children": deployment(2, 2)}))

    after = unreadable(before, 4, "spec.model: Field required.", observe().now)

    assert said(after, ConditionType.ACCEPTED) == ("False", Reason.SPEC_INVALID)
    assert said(after, ConditionType.AVAILABLE) == ("True", Reason.SERVING)
    assert after.observed_generation == 4
