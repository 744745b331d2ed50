"""The metrics carry vLLM's names and labels."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from holdfast_engine.metrics import EngineMetrics


def samples(metrics: EngineMetrics) -> dict[tuple[str, str], float]:
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            assert sample.labels["model_name"] == "tiny"
            found[
                sample.name,
                sample.labels.get("finished_reason", sample.labels.get("le", sample.labels.get("priority", ""))),
            ] = sample.value
    return found


def test_gauges_are_read_when_scraped() -> None:
    metrics = EngineMetrics("tiny")
    load = [2, 3]
    metrics.follow(lambda: load[0], lambda: load[1], {"high": 1, "normal": 2, "low": 0}.__getitem__, lambda: 0.5)
    load[0] = 7
    found = samples(metrics)
    assert found["vllm:num_requests_running", ""] == 7
    assert found["vllm:num_requests_waiting", ""] == 3
    assert found["vllm:kv_cache_usage_perc", ""] == 0.5
    assert found["holdfast:requests_waiting_by_priority", "normal"] == 2
    assert found["holdfast:requests_refused_total", "low"] == 0


def test_tokens_and_their_times_are_counted() -> None:
    metrics = EngineMetrics("tiny")
    metrics.prompt_accepted(11)
    metrics.tokens_generated(1, first=True, seconds=0.03)
    metrics.tokens_generated(2, first=False, seconds=0.02)
    found = samples(metrics)
    assert found["vllm:prompt_tokens_total", ""] == 11
    assert found["vllm:generation_tokens_total", ""] == 3
    assert found["vllm:time_to_first_token_seconds_count", ""] == 1
    assert found["vllm:time_to_first_token_seconds_bucket", "0.02"] == 0
    assert found["vllm:time_to_first_token_seconds_bucket", "0.04"] == 1
    assert found["vllm:inter_token_latency_seconds_count", ""] == 1


def test_requests_are_counted_by_the_reason_they_ended_for() -> None:
    metrics = EngineMetrics("tiny")
    metrics.request_finished("length", 1.5)
    found = samples(metrics)
    assert found["vllm:request_success_total", "length"] == 1
    assert found["vllm:request_success_total", "stop"] == 0
    assert found["vllm:e2e_request_latency_seconds_sum", ""] == 1.5


def test_the_prefix_cache_is_told_once_it_is_known() -> None:
    metrics = EngineMetrics("tiny")
    assert b"prefix_cache" not in metrics.render()
    metrics.prefix_cache(100, 40)
    metrics.prefix_cache(300, 140)
    found = samples(metrics)
    assert found["vllm:prefix_cache_queries_total", ""] == 300
    assert found["vllm:prefix_cache_hits_total", ""] == 140


def test_two_engines_in_one_process_do_not_share_a_registry() -> None:
    one, other = EngineMetrics("tiny"), EngineMetrics("tiny")
    one.prompt_accepted(1)
    assert samples(other)["vllm:prompt_tokens_total", ""] == 0
