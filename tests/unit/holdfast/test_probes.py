"""Which services an observer asks for in one round."""

from __future__ import annotations

from dataclasses import replace

from holdfast.adapters.probes import EACH_ROUND, Observer, Target, _Answer, read_traffic
from holdfast.api.conditions import Reason
from holdfast.api.region import Verdict
from holdfast.api.traffic import ServiceTraffic
from holdfast.domain.health import Limits, Probe, Thresholds, Watching

WELL = _Answer(Probe(True, Reason.ANSWERING, ""))
DEAD = _Answer(Probe(False, Reason.GATEWAY_UNREACHABLE, ""))


def targets(count: int, region: str = "us-east") -> list[Target]:
    return [Target(f"default/s{number}", f"m{number}", region, Thresholds(), Limits()) for number in range(count)]


def test_a_few_services_are_all_asked_for_in_every_round() -> None:
    wanted = targets(EACH_ROUND)

    assert Observer()._this_round(wanted, {"us-east": WELL}) == wanted


def test_many_services_are_asked_for_in_turn_and_none_is_forgotten() -> None:
    observer, wanted = Observer(), targets(3 * EACH_ROUND + 7)
    rounds = [observer._this_round(wanted, {"us-east": WELL}) for _ in range(4)]

    assert {len(each) for each in rounds} == {EACH_ROUND}
    assert {each.service for one in rounds for each in one} == {each.service for each in wanted}


def test_services_in_doubt_are_asked_for_in_every_round() -> None:
    observer, wanted = Observer(), targets(4 * EACH_ROUND)
    doubtful = wanted[-1]
    observer.services["us-east", doubtful.service] = Watching(Verdict.HEALTHY, agreeing_since=1.0, answered=True)

    assert all(doubtful in observer._this_round(wanted, {"us-east": WELL}) for _ in range(5))


def test_a_gateway_that_does_not_answer_speaks_for_all_its_services() -> None:
    near, far = targets(2 * EACH_ROUND), [replace(each, region="eu-west") for each in targets(2 * EACH_ROUND)]

    found = Observer()._this_round([*near, *far], {"us-east": WELL, "eu-west": DEAD})

    assert set(far) <= set(found)
    assert len(found) == len(far) + EACH_ROUND


def test_services_whose_users_requests_fail_are_asked_for_in_every_round() -> None:
    observer, wanted = Observer(), targets(4 * EACH_ROUND)
    failing = ServiceTraffic(window_seconds=10, requests=20, errors=20)
    answer = replace(WELL, traffic={wanted[-1].service: failing})

    assert all(wanted[-1] in observer._this_round(wanted, {"us-east": answer}) for _ in range(5))


def test_a_gateway_that_tells_nonsense_has_told_nothing() -> None:
    assert read_traffic('{"default/chat": {"windowSeconds": 10, "requests": 3}}')["default/chat"].requests == 3
    for text in ("", "[]", "null", '{"default/chat": 3}', '{"default/chat": {"requests": -1}}', "<html>"):
        assert read_traffic(text) == {}
