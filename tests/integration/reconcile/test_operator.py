"""The operator against a real API server: what it makes, what it refuses, what it survives."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from kubernetes import client
from tests.integration.reconcile.servers import Operator, Server, wait_for

pytestmark = pytest.mark.integration


def child_versions(server: Server, name: str) -> dict[str, str]:
    """Resource versions of what the operator made for a service, and of the service itself."""
    labels = f"serving.holdfast.dev/service={name}"
    found = {"service": server.read(name)["metadata"]["resourceVersion"]}
    for kind, listed in (
        ("deployment", server.apps.list_namespaced_deployment("default", label_selector=labels)),
        ("service", server.core.list_namespaced_service("default", label_selector=labels)),
        ("configmap", server.core.list_namespaced_config_map("default", label_selector=labels)),
    ):
        for each in listed.items:
            found[f"{kind}/{each.metadata.name}"] = each.metadata.resource_version
    return found


def quiet(server: Server, name: str, seconds: float = 2.0) -> dict[str, str]:
    """Waits until nothing about the service has changed for a while (its Deployment's controller writes too)."""
    before = child_versions(server, name)
    since = time.monotonic()
    until = since + 60
    while time.monotonic() < until:
        time.sleep(0.2)
        now = child_versions(server, name)
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > seconds:
            return before
    pytest.fail("the service's objects never came to rest")


def test_an_accepted_service_gets_engines_a_route_and_a_status(
    server: Server, operator: Operator, service: str
) -> None:
    server.create(service, defaults={"replicas": {"min": 2}})
    server.wait_accepted(service)

    deployment = wait_for(
        "the Deployment", lambda: server.apps.read_namespaced_deployment(f"{service}-engine", "default")
    )
    route = wait_for("the route", lambda: server.core.read_namespaced_config_map(f"{service}-route", "default"))
    budget = wait_for(
        "the budget",
        lambda: server.custom.get_namespaced_custom_object(
            "policy", "v1beta1", "default", "poddisruptionbudgets", f"{service}-engine"
        ),
    )

    assert deployment.spec.replicas == 2
    assert deployment.spec.template.spec.containers[0].image == "holdfast/engine:1"
    assert [each["name"] for each in json.loads(route.data["route.json"])["regions"]] == ["us-east", "eu-west"]
    assert budget["spec"]["maxUnavailable"] == 1
    owner = deployment.metadata.owner_references[0]
    assert (owner.kind, owner.name, owner.controller) == ("LLMService", service, True)
    assert server.condition(service, "Available")["reason"] == "NoEngineReady"  # there are no nodes
    events = wait_for(
        "the event",
        lambda: [
            each
            for each in server.core.list_namespaced_event("default").items
            if each.involved_object.name == service and each.reason == "SpecAccepted"
        ],
    )
    assert len(events) == 1


def test_warm_engines_are_run_with_the_others_and_the_route_says_how_many_take_requests(
    server: Server, operator: Operator, service: str
) -> None:
    def engines() -> tuple[int, int | None]:
        deployment = server.apps.read_namespaced_deployment(f"{service}-engine", "default")
        route = server.core.read_namespaced_config_map(f"{service}-route", "default")
        return deployment.spec.replicas, json.loads(route.data["route.json"]).get("routed")

    server.create(service, defaults={"replicas": {"min": 2}, "warm": 1})
    server.wait_accepted(service)
    wait_for("a warm engine", lambda: engines() == (3, 2))

    server.patch(service, {"defaults": {"replicas": {"min": 3}, "warm": 0}})
    wait_for("the same engines, all routed", lambda: engines() == (3, None))


def test_nothing_is_written_while_nothing_changes(server: Server, operator: Operator, service: str) -> None:
    server.create(service)
    server.wait_accepted(service)
    before = quiet(server, service)
    written = operator.metric("holdfast_writes_total")

    # Every change of a Region's spec wakes every service's daemon.
    body = {"spec": {"preference": 101}}
    passes = operator.metric("holdfast_reconciles_total")
    server.custom.patch_cluster_custom_object("serving.holdfast.dev", "v1alpha1", "regions", "eu-west", body)
    wait_for("another pass", lambda: operator.metric("holdfast_reconciles_total") > passes)

    assert quiet(server, service) == before
    assert operator.metric("holdfast_writes_total") == written


def test_one_edit_is_one_write_of_the_one_object_it_changes(server: Server, operator: Operator, service: str) -> None:
    server.create(service)
    server.wait_accepted(service)
    before = quiet(server, service)

    server.patch(service, {"traffic": {"mode": "ActivePassive"}})
    server.wait_accepted(service)
    after = quiet(server, service)

    assert {name for name in after if after[name] != before.get(name)} == {"service", f"configmap/{service}-route"}


def test_what_somebody_changes_or_deletes_is_put_back(server: Server, operator: Operator, service: str) -> None:
    server.create(service)
    server.wait_accepted(service)
    name = f"{service}-engine"
    wait_for("the Deployment", lambda: server.apps.read_namespaced_deployment(name, "default"))

    server.apps.patch_namespaced_deployment(name, "default", {"spec": {"replicas": 7}})
    wait_for("one replica", lambda: server.apps.read_namespaced_deployment(name, "default").spec.replicas == 1)
    server.core.delete_namespaced_config_map(f"{service}-route", "default")
    wait_for("the route", lambda: server.core.read_namespaced_config_map(f"{service}-route", "default"))


def test_labels_that_others_add_are_left_alone(server: Server, operator: Operator, service: str) -> None:
    server.create(service)
    server.wait_accepted(service)
    name = f"{service}-engine"
    wait_for("the Deployment", lambda: server.apps.read_namespaced_deployment(name, "default"))

    server.apps.patch_namespaced_deployment(name, "default", {"metadata": {"labels": {"team": "search"}}})
    server.patch(service, {"defaults": {"replicas": {"min": 3}}})
    wait_for("three replicas", lambda: server.apps.read_namespaced_deployment(name, "default").spec.replicas == 3)

    assert server.apps.read_namespaced_deployment(name, "default").metadata.labels["team"] == "search"


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ({"engine": {"type": "warp"}}, "UnknownEngine"),
        ({"regions": [{"name": "us-east"}, {"name": "mars"}]}, "UnknownRegion"),
        ({"defaults": {"replicas": {"min": 5, "max": 2}}}, "ReplicasOutOfRange"),
    ],
)
def test_an_impossible_edit_is_refused_and_changes_nothing_that_runs(
    server: Server, operator: Operator, service: str, edit: dict[str, Any], reason: str
) -> None:
    server.create(service)
    server.wait_accepted(service)
    before = quiet(server, service)

    server.patch(service, edit)
    refused = server.wait_accepted(service, reason)
    after = quiet(server, service)

    assert refused["status"] == "False"
    assert {name for name in after if after[name] != before.get(name)} == {"service"}


def test_a_service_is_accepted_as_soon_as_its_region_is_known(server: Server, operator: Operator, service: str) -> None:
    region = f"r-{service}"
    server.create(service, regions=[{"name": "us-east"}, {"name": region}])
    server.wait_accepted(service, "UnknownRegion")

    server.create_region(region, "198.18.0.99")

    server.wait_accepted(service)


def test_of_two_services_with_one_model_the_second_waits_for_the_first_to_go(
    server: Server, operator: Operator, service: str
) -> None:
    second = f"{service}-2"
    server.create(service)
    server.wait_accepted(service)
    time.sleep(1.1)  # ages count in whole seconds
    server.create(second, model={"name": service, "source": "file:///models/m.gguf"})
    server.wait_accepted(second, "ModelNameTaken")

    server.delete(service)

    server.wait_accepted(second)


def test_a_deleted_service_takes_everything_with_it(server: Server, operator: Operator, service: str) -> None:
    server.create(service)
    server.wait_accepted(service)
    wait_for("the Deployment", lambda: server.apps.read_namespaced_deployment(f"{service}-engine", "default"))

    server.delete(service)

    def gone() -> bool:
        try:
            return set(child_versions(server, service)) == {"service"}
        except client.ApiException as error:
            labels = f"serving.holdfast.dev/service={service}"
            left = server.apps.list_namespaced_deployment("default", label_selector=labels).items
            maps = server.core.list_namespaced_config_map("default", label_selector=labels).items
            return error.status == 404 and not left and not maps

    wait_for("the end of everything", gone)


def test_the_api_server_refuses_what_the_schema_forbids(server: Server, service: str) -> None:
    for spec, words in (
        ({"regions": []}, "spec.regions"),
        ({"regions": [{"name": "us-east"}, {"name": "us-east"}]}, "Duplicate"),
        ({"traffic": {"maxStream": "soon"}}, "maxStream"),
        ({"traffic": {"mode": "Sometimes"}}, "ActivePassive"),
        ({"model": {"name": "m"}}, "source"),
    ):
        with pytest.raises(client.ApiException) as error:
            server.create(service, **spec)
        assert error.value.status == 422
        assert words in error.value.body


def test_the_api_server_fills_in_defaults_and_scales(server: Server, operator: Operator, service: str) -> None:
    created = server.create(service)
    assert created["spec"]["traffic"] == {
        "mode": "ActiveActive",
        "maxStream": "15m",
        "maxResumes": 3,
        "stickyHeader": "x-user",
    }
    server.wait_accepted(service)

    server.custom.patch_namespaced_custom_object_scale(
        "serving.holdfast.dev", "v1alpha1", "default", "llmservices", service, {"spec": {"replicas": 2}}
    )

    wait_for(
        "two replicas",
        lambda: server.apps.read_namespaced_deployment(f"{service}-engine", "default").spec.replicas == 2,
    )


def test_a_restarted_operator_writes_nothing_anew(server: Server, operator: Operator, service: str) -> None:
    server.create(service)
    server.wait_accepted(service)
    before = quiet(server, service)

    assert operator.stop() == 0
    operator.start()
    wait_for("the first passes", lambda: operator.metric("holdfast_reconciles_total") > 0)

    assert quiet(server, service) == before
    assert operator.metric("holdfast_writes_total") == 0


def test_the_operator_outlives_its_api_server(server: Server, operator: Operator, service: str) -> None:
    server.create(service)
    server.wait_accepted(service)

    server.bed.fault("kill", "us-east")
    time.sleep(2)
    server.bed.heal("us-east")
    wait_for("the edit", lambda: server.patch(service, {"defaults": {"replicas": {"min": 2}}}) or True)

    server.wait_accepted(service)
    wait_for(
        "two replicas",
        lambda: server.apps.read_namespaced_deployment(f"{service}-engine", "default").spec.replicas == 2,
    )
    assert operator.process is not None
    assert operator.process.poll() is None
