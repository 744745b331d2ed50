"""The whole of Holdfast on three real regions: what the clients see while things die."""

from __future__ import annotations

import json
import signal
import urllib.request
from typing import Any

import pytest
from kubernetes import client
from tests.e2e.world import World, api_server_of, kill_processes_of, wait_for

pytestmark = pytest.mark.e2e


def test_every_region_answers_with_generated_tokens(healthy: World) -> None:
    texts = set()
    for region in healthy.bed.regions:
        status, served_by, answer = healthy.ask(f"http://{region.address}:8080", max_tokens=12, temperature=0)
        assert status == 200
        assert served_by == region.name
        assert answer["usage"]["completion_tokens"] == 12
        texts.add(answer["choices"][0]["text"])
    assert len(texts) == 1, "the same model and prompt, decoded greedily, gave different texts"


def test_chat_streams_through_the_edge(healthy: World) -> None:
    body = {
        "model": healthy.service.model,
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 5,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    request = urllib.request.Request(
        f"{healthy.edge.url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        lines = [line.decode().strip() for line in answer if line.strip()]

    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["usage"]["completion_tokens"] == 5


def test_an_unknown_model_is_told_which_there_are(healthy: World) -> None:
    status, _, answer = healthy.ask(healthy.edge.url, model="nothing")

    assert status == 404
    assert answer["error"]["code"] == "model_not_found"
    assert healthy.service.model in answer["error"]["message"]


def test_every_node_has_accelerators_and_an_engine_that_wants_more_is_explained(healthy: World) -> None:
    region = healthy.names[0]
    with healthy.api(region) as api:
        [node] = client.CoreV1Api(api).list_node().items
        assert node.status.allocatable["nvidia.com/gpu"] == "8"
        custom = client.CustomObjectsApi(api)
        body = {
            "apiVersion": "serving.holdfast.dev/v1alpha1",
            "kind": "LLMService",
            "metadata": {"name": "greedy"},
            "spec": {
                "model": {"name": "greedy", "source": "hf://nobody/nothing"},
                "engine": {"type": "vllm", "gpu": {"perReplica": 16}, "parallelism": {"tensor": 16}},
                "regions": [{"name": region}],
            },
        }
        where = ("serving.holdfast.dev", "v1alpha1", "default", "llmservices")
        custom.create_namespaced_custom_object(*where, body)
        try:

            def trouble() -> Any:
                found: Any = custom.get_namespaced_custom_object(*where, "greedy")
                conditions = found.get("status", {}).get("conditions", ())
                return next((each for each in conditions if each["reason"] == "EngineUnschedulable"), None)

            assert "nvidia.com/gpu" in wait_for("the condition", trouble)["message"]
        finally:
            custom.delete_namespaced_custom_object(*where, "greedy")


@pytest.mark.parametrize("kind", ["kill", "freeze", "cut"])
def test_a_region_that_fails_under_load_costs_no_request(healthy: World, kind: str) -> None:
    leader, _ = healthy.leader()

    with healthy.load() as load:
        region = load.busiest(leave_out=leader)
        healthy.bed.fault(kind, region)
        wait_for("the drain", lambda: healthy.drained_by(leader, region))
        healthy.bed.heal(region)
        wait_for("every region's whole share", healthy.steady)

    load.assert_nothing_failed()


def test_engines_that_are_killed_under_load_cost_no_request(healthy: World) -> None:
    killed: set[str] = set()

    def returned(region: str) -> bool:
        statuses = [each for pod in healthy.ready_engine_pods(region) for each in pod.status.container_statuses]
        return any(each.container_id not in killed for each in statuses)

    with healthy.load() as load:
        region = load.busiest()
        for pod in healthy.ready_engine_pods(region):
            killed |= {each.container_id for each in pod.status.container_statuses}
            kill_processes_of(pod)
        wait_for("the engine's return", lambda: returned(region))

    load.assert_nothing_failed()


def test_replacing_all_engines_under_load_costs_no_request_and_no_stream(healthy: World) -> None:
    engine = healthy.service.manifest["spec"]["engine"]
    argument = "--max-num-seqs=48"

    def replaced(region: str) -> bool:
        pods = [pod for pod in healthy.engine_pods(region) if not pod.metadata.deletion_timestamp]
        return len(pods) == 1 and argument in pods[0].spec.containers[0].args

    with healthy.load() as load:
        engine["args"] = [*engine["args"], argument]
        healthy.regions[0].apply()
        wait_for("new engines everywhere", lambda: all(map(replaced, healthy.names)))

    load.assert_nothing_failed()


def test_a_gateway_restarts_from_its_files_without_operator_and_api_server(healthy: World) -> None:
    region = healthy.bed.regions[-1]
    pod = healthy.gateway_pod(region.name)
    api_server = api_server_of(region.address)
    url = f"http://{region.address}:8080"
    api_server.send_signal(signal.SIGSTOP)
    try:
        kill_processes_of(pod)

        wait_for("an answer of the restarted gateway", lambda: healthy.ask(url)[0] == 200)
        wait_for("an answer from its own engines", lambda: healthy.ask(url)[:2] == (200, region.name))
    finally:
        api_server.send_signal(signal.SIGCONT)


def test_a_region_without_engines_forwards_and_the_edge_does_not_notice(healthy: World) -> None:
    region = healthy.bed.regions[0]
    where = ("serving.holdfast.dev", "v1alpha1", "default", "llmservices", healthy.service.name)
    others = [{"name": name} for name in healthy.names[1:]]
    with healthy.api(region.name) as api:
        custom = client.CustomObjectsApi(api)
        custom.patch_namespaced_custom_object(*where, {"spec": {"regions": others}})
    try:
        wait_for("the engines' end", lambda: not healthy.engine_pods(region.name))

        status, served_by, _ = healthy.ask(f"http://{region.address}:8080")

        assert status == 200
        assert served_by in healthy.names[1:]
    finally:
        healthy.regions[0].apply()
        with healthy.api(region.name) as api:
            whole = {"spec": {"regions": healthy.service.manifest["spec"]["regions"]}}
            client.CustomObjectsApi(api).patch_namespaced_custom_object(*where, whole)
    healthy.wait_all_serve()
