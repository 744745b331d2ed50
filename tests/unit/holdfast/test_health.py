"""One observer's verdict, and the majority's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.api.conditions import Reason
from holdfast.api.region import Verdict
from holdfast.api.traffic import ServiceTraffic
from holdfast.domain.health import (
    ENOUGH_REQUESTS,
    Limits,
    Probe,
    Thresholds,
    Watching,
    after_probe,
    blind,
    closed_eyes,
    complaint,
    excused,
    generates,
    judge,
    restored,
)

OK = Probe(True, Reason.ANSWERING, "It answers.")
BAD = Probe(False, Reason.NO_ENGINE_ANSWERS, "No engine answers.")
T = Thresholds(down=2, up=10)


def watch(*probes: tuple[float, Probe]) -> Watching:
    seen = Watching()
    for now, probe in probes:
        seen = after_probe(seen, probe, now, T)
    return seen


def view(verdict: Verdict, message: str = "It hangs.") -> Watching:
    return Watching(verdict, Reason.NO_PROGRESS, message)


def test_the_first_answer_makes_a_region_healthy() -> None:
    assert watch((0, OK)).verdict is Verdict.HEALTHY


def test_what_never_answered_is_unknown_and_not_failing() -> None:
    assert watch((0, BAD), (60, BAD)).verdict is Verdict.UNKNOWN


def test_a_region_is_unhealthy_once_probes_failed_for_long_enough() -> None:
    assert watch((0, OK), (1, BAD), (2.9, BAD)).verdict is Verdict.HEALTHY
    assert watch((0, OK), (1, BAD), (3, BAD)).verdict is Verdict.UNHEALTHY


def test_one_answer_begins_the_count_of_failures_anew() -> None:
    assert watch((0, OK), (1, BAD), (2, OK), (3, BAD), (4.9, BAD)).verdict is Verdict.HEALTHY


def test_a_region_is_healthy_again_only_after_the_longer_time() -> None:
    failed = ((0, OK), (1, BAD), (3, BAD))

    assert watch(*failed, (4, OK), (13.9, OK)).verdict is Verdict.UNHEALTHY
    assert watch(*failed, (4, OK), (14, OK)).verdict is Verdict.HEALTHY


def test_a_blind_observer_knows_nothing_but_remembers_what_ever_answered() -> None:
    eyes = closed_eyes(watch((0, OK)), "us-east does not answer: no route.")

    assert eyes.verdict is Verdict.UNKNOWN
    assert eyes.reason == Reason.OBSERVER_BLIND
    assert "no route" in eyes.message
    assert closed_eyes(eyes, "us-east does not answer: nothing within 1 s.") == eyes  # else each second would be news
    assert after_probe(after_probe(eyes, BAD, 1, T), BAD, 3, T).verdict is Verdict.UNHEALTHY


def test_an_observer_that_is_started_again_goes_on_where_it_was() -> None:
    failing = restored(Verdict.UNHEALTHY, Reason.NO_PROGRESS, "It hangs.")
    starting = watch((0, BAD))
    again = restored(starting.verdict, starting.reason, starting.message)

    assert after_probe(failing, OK, 0, T).verdict is Verdict.UNHEALTHY
    assert after_probe(after_probe(again, BAD, 0, T), BAD, 60, T).verdict is Verdict.UNKNOWN, "it has yet to start"


def test_an_observer_is_blind_if_none_of_several_regions_answers() -> None:
    assert blind([BAD, BAD, None])
    assert not blind([BAD, OK])
    assert not blind([BAD]), "one region alone proves nothing"
    assert not blind([])


def test_a_majority_of_all_voters_is_needed_not_of_those_that_are_heard() -> None:
    two = {"a": view(Verdict.UNHEALTHY), "b": view(Verdict.UNHEALTHY)}

    assert judge("x", two, voters=3).verdict is Verdict.UNHEALTHY
    assert judge("x", {"a": two["a"]}, voters=3).verdict is Verdict.UNKNOWN
    assert judge("x", two, voters=4).verdict is Verdict.UNKNOWN
    assert judge("x", {}, voters=3).message == "No majority of 3 observers agrees on x: nobody."


def test_the_judgement_names_the_commonest_cause() -> None:
    found = judge(
        "x",
        {
            "a": view(Verdict.UNHEALTHY, "It hangs."),
            "b": view(Verdict.UNHEALTHY, "It is gone."),
            "c": view(Verdict.UNHEALTHY, "It is gone."),
        },
        voters=3,
    )

    assert found.message == "3 of 3 observers see x fail: It is gone."


STEPS = st.lists(st.tuples(st.floats(0.1, 3), st.booleans()), max_size=60)


@given(STEPS)
def test_a_verdict_changes_only_after_probes_agreed_for_the_whole_time(steps: list[tuple[float, bool]]) -> None:
    seen, now, last = Watching(), 0.0, list[tuple[float, bool]]()
    for passed, ok in steps:
        now += passed
        before, seen = seen, after_probe(seen, OK if ok else BAD, now, T)
        last.append((now, ok))
        if before.verdict in (Verdict.UNKNOWN, seen.verdict):
            continue
        up = seen.verdict is Verdict.HEALTHY
        agreeing = [at for place, (at, _) in enumerate(last) if all(found == up for _, found in last[place:])]
        assert now - agreeing[0] >= (T.up if up else T.down)


@given(st.dictionaries(st.sampled_from("abcde"), st.sampled_from(Verdict)), st.integers(1, 5))
def test_the_majority_never_says_what_only_a_minority_sees(views: dict[str, Verdict], voters: int) -> None:
    found = judge("x", {name: view(verdict) for name, verdict in views.items()}, max(voters, len(views)))

    if found.verdict is not Verdict.UNKNOWN:
        assert 2 * sum(each is found.verdict for each in views.values()) > max(voters, len(views))


LIMITS = Limits(progress_timeout=4.0, error_rate=0.5)


def seen(requests: int = 0, errors: int = 0, silent: float | None = None) -> ServiceTraffic:
    return ServiceTraffic(window_seconds=10, requests=requests, errors=errors, silent_seconds=silent)


def test_engines_that_have_requests_and_generate_nothing_are_failing() -> None:
    assert complaint("chat in us-east", seen(silent=1.9), LIMITS) is None

    said = complaint("chat in us-east", seen(silent=4.0), LIMITS)
    assert said is not None
    assert (said.ok, said.reason) == (False, Reason.NO_PROGRESS)
    assert "no token for 4.0 s" in said.message


def test_engines_that_fail_half_of_their_requests_are_failing() -> None:
    assert complaint("chat in us-east", seen(requests=20, errors=9), LIMITS) is None

    said = complaint("chat in us-east", seen(requests=20, errors=10), LIMITS)
    assert said is not None
    assert (said.ok, said.reason) == (False, Reason.REQUESTS_FAIL)
    assert "10 of 20" in said.message


def test_a_few_failures_prove_nothing() -> None:
    assert complaint("chat in us-east", seen(ENOUGH_REQUESTS - 1, ENOUGH_REQUESTS - 1), LIMITS) is None


@given(requests=st.integers(0, 1000), silent=st.none() | st.floats(0, 1.9))
def test_traffic_without_failures_never_speaks_against_a_region(requests: int, silent: float | None) -> None:
    assert complaint("chat in us-east", seen(requests, 0, silent), LIMITS) is None


def test_tokens_that_come_show_an_engine_at_work() -> None:
    assert generates(seen(silent=0.5))
    assert not generates(seen(silent=3.0))
    assert not generates(seen(requests=100))  # nobody waits for a token
    assert not generates(None)


def test_a_silence_that_lasted_for_the_whole_timeout_needs_no_second_look() -> None:
    healthy = watch((0, OK))
    silent = complaint("chat in us-east", seen(silent=4.0), LIMITS)
    assert silent is not None

    assert after_probe(healthy, silent, 10, T, began=6).verdict is Verdict.UNHEALTHY


def test_a_silence_makes_a_verdict_only_after_its_whole_timeout() -> None:
    doubted = complaint("chat in us-east", seen(silent=3.0), LIMITS)
    assert doubted is not None

    after = after_probe(watch((0, OK)), doubted, 10, T, began=7)
    assert after.verdict is Verdict.HEALTHY
    assert after.agreeing_since == 7
    assert after_probe(after, OK, 10.5, T).agreeing_since is None


def test_a_silence_that_ends_with_failing_requests_counts_from_its_beginning() -> None:
    doubted = complaint("chat in us-east", seen(silent=3.0), LIMITS)
    assert doubted is not None

    after = after_probe(watch((0, OK)), doubted, 10, T, began=7)

    assert after_probe(after, BAD, 12, T).verdict is Verdict.UNHEALTHY


def test_a_synthetic_request_that_failed_proves_nothing_while_users_get_their_tokens() -> None:
    assert excused("chat in us-east", BAD, seen(silent=0.5)).ok
    assert excused("chat in us-east", BAD, seen(silent=3.0)) is BAD
    assert excused("chat in us-east", BAD, None) is BAD
    assert excused("chat in us-east", OK, None) is OK
