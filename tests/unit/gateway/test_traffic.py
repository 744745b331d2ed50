"""What the gateway counts of its engines' answers, from Envoy's and the engines' own words."""

from __future__ import annotations

from holdfast_gateway.traffic import WINDOW_SECONDS, Counted, Generated, History, read_metrics, read_stats

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 100.0
vllm:prompt_tokens_created{engine="0",model_name="m"} 1.7e+09
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{engine="0",model_name="m"} 40.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 7.0
"""


def history(*seen: tuple[float, int, int]) -> History:
    found = History()
    for now, completed, errors in seen:
        found.count(now, Counted(completed, errors))
    return found


def test_envoys_counters_are_told_apart_by_service() -> None:
    found = read_stats(
        {
            "stats": [
                {"name": "vhost.peer.vcluster.default/chat.upstream_rq_completed", "value": 7},
                {"name": "vhost.peer.vcluster.default/chat.upstream_rq_5xx", "value": 2},
                {"name": "vhost.peer.vcluster.default/chat.upstream_rq_200", "value": 5},
                {"name": "cluster.local/default/chat.upstream_rq_active", "value": 3},
                {"name": "cluster.local/team/code.upstream_rq_active", "value": 1},
                {"histograms": {}},
            ]
        }
    )

    assert found == {"default/chat": Counted(7, 2, 3), "team/code": Counted(0, 0, 1)}


def test_what_has_no_engine_of_its_revision_here_is_not_counted_and_revisions_are_summed() -> None:
    found = read_stats(
        {
            "stats": [
                {"name": "vhost.peer.vcluster.default/chat.upstream_rq_completed", "value": 10},
                {"name": "vhost.peer.vcluster.default/chat.upstream_rq_5xx", "value": 4},
                {"name": "cluster.local/default/chat.upstream_rq_active", "value": 1},
                {"name": "cluster.local/default/chat.upstream_cx_none_healthy", "value": 1},
                {"name": "cluster.local/default/chat/r.1.upstream_rq_active", "value": 2},
                {"name": "cluster.local/default/chat/r.1.upstream_cx_none_healthy", "value": 3},
            ]
        }
    )

    assert found == {"default/chat": Counted(completed=7, errors=1, active=3)}


def test_all_of_an_engines_models_and_parts_are_summed() -> None:
    assert read_metrics(VLLM) == Generated(in_flight=6, tokens=140.0)


def test_an_engine_that_says_nothing_of_interest_has_nothing_in_flight() -> None:
    assert read_metrics("# nothing\nprocess_cpu_seconds_total 3\n") == Generated(0, 0.0)


def test_only_the_last_seconds_count() -> None:
    found = history((0, 100, 50), (1, 110, 50), (2, 110 + 10, 55)).report(2)
    assert (found.requests, found.errors, found.window_seconds) == (20, 5, 2)

    found = history((0, 100, 50), (1, 110, 50), (1 + WINDOW_SECONDS, 112, 51)).report(1 + WINDOW_SECONDS)
    assert (found.requests, found.errors) == (2, 1)


def test_counters_of_an_envoy_that_was_started_anew_are_no_negative_numbers() -> None:
    found = history((0, 100, 50), (1, 3, 1)).report(1)

    assert (found.requests, found.errors) == (0, 0)


def test_silence_lasts_from_the_last_token_on_and_only_while_requests_are_there() -> None:
    found = history((0, 0, 0))

    found.progress(1, Generated(2, 10))
    found.progress(2, Generated(2, 11))
    found.progress(3, Generated(2, 11))
    assert found.report(4.5).silent_seconds == 2.5

    found.progress(5, Generated(0, 11))
    assert found.report(6).silent_seconds is None

    found.progress(7, Generated(1, 11))
    assert found.report(7.5).silent_seconds == 0.5


def test_engines_that_do_not_say_anything_are_not_called_silent() -> None:
    found = history((0, 0, 0))
    found.progress(1, Generated(2, 10))

    found.progress(9, None)

    assert found.report(9).silent_seconds is None
