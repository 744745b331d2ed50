"""What is computed of the ways through gateways, and how a peer is started."""

from __future__ import annotations

import yaml

from holdfast_chaos.bench import peer
from holdfast_chaos.bench.asker import Target, Turn, plan_from
from holdfast_chaos.bench.benchmark import Setting
from holdfast_chaos.bench.cases.gateway_overhead import figures, plan_for, way_ratios, way_results
from holdfast_chaos.bench.figures import Figure, figure_table
from holdfast_chaos.bench.ways import BARE, DIRECT, GATEWAY, PEER, Way
from holdfast_chaos.service import Service
from holdfast_testbed.progress import Progress
from holdfast_testbed.testbed import Testbed


def turn(way: str, requests: int, proxy_cpu: float, p50: float = 1.0) -> Turn:
    return Turn(way, 0, 8, requests, 2.0, p50, 2 * p50, proxy_cpu, 0.1)


def test_processor_time_is_summed_over_rounds_before_it_is_divided() -> None:
    found = way_results([turn(GATEWAY, 100, 0.01), turn(GATEWAY, 300, 0.19), turn(BARE, 1, 9)], GATEWAY, 8)

    assert (found["requests"], found["proxy_cpu_us"], found["requests_per_proxy_cpu_second"]) == (400, 500.0, 2000.0)


def test_a_way_without_a_proxy_has_no_requests_per_processor_time() -> None:
    assert way_results([turn(DIRECT, 100, 0.0)], DIRECT, 8)["requests_per_proxy_cpu_second"] is None


def results(*ways: str) -> dict[str, dict[str, dict[str, float]]]:
    one = {"requests_per_second": 10.0, "p50_ms": 1.0, "p99_ms": 2.0, "added_p50_ms": 0.4, "added_p99_ms": 1.0}
    per_second = {GATEWAY: 3000.0, PEER: 60.0}
    return {
        way: {str(count): {**one, "proxy_cpu_us": 5.0, "requests_per_proxy_cpu_second": per_second.get(way, 1.0)}
              for count in (1, 8)}
        for way in ways
    }  # fmt: skip


def test_what_was_aimed_at_is_told_with_and_without_the_peer() -> None:
    with_it = {each.name: each for each in figures(results(DIRECT, GATEWAY, PEER))}
    without = {each.name: each for each in figures(results(DIRECT, GATEWAY))}
    name = "requests per CPU second, gateway / LiteLLM"

    assert (with_it[name].values, with_it[name].reached) == ([50.0], True)
    assert (without[name].values, without[name].reached) == ([], None)


def test_only_ways_that_were_asked_are_compared() -> None:
    assert list(way_ratios(results(DIRECT, GATEWAY), 8)) == ["gateway / direct"]


def test_more_is_better_where_a_figure_says_so() -> None:
    figure = Figure("rate", (3.0, 2.0), "", aim=2500, digits=0, at_least=True)

    assert (figure.worst, figure.reached) == (2.0, False)
    assert figure_table("t", [figure]).rows[0][-1] == "≥ 2,500"


def test_a_plan_survives_its_way_to_the_client_with_the_keys_of_each_way() -> None:
    plan = plan_for([Way(GATEWAY, "http://g", (7,), {"authorization": "Bearer k"})], 3.0)

    assert plan.rounds == 2
    assert plan_from({**plan.__dict__, "targets": [vars(each) for each in plan.targets]}).targets == [
        Target(GATEWAY, "http://g", (7,), {"authorization": "Bearer k"})
    ]


def test_a_peer_that_is_not_wanted_is_not_installed() -> None:
    progress = Progress(quiet=True)
    setting = Setting(1.0, progress, Testbed("none", progress), Service({}), frozenset({"litellm"}))

    assert peer.wanted(setting) == (None, "LiteLLM was left out.")


def test_the_peers_configuration_asks_the_engine_and_retries_nothing() -> None:
    content = yaml.safe_load(peer.config("bench", "http://127.0.0.1:9/v1"))

    assert content["model_list"][0]["litellm_params"]["api_base"] == "http://127.0.0.1:9/v1"
    assert content["litellm_settings"]["num_retries"] == 0
