"""The chart as Helm itself lints and renders it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from holdfast.adapters.cluster import PLURALS
from holdfast.api.crd import DEFINITIONS, definition
from holdfast_gateway.__main__ import main, run_ledger

CHART = Path(__file__).parents[3] / "charts" / "holdfast"
VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
VALUES: dict[str, dict[str, Any]] = {
    "least": {"region": "us-east"},
    "host-ports": {"region": "us-east", "gateway": {"exposure": {"type": "HostPort"}}},
    "everything": {
        "region": "us-east",
        "imagePullSecrets": [{"name": "registry"}],
        "gateway": {
            "exposure": {"type": "NodePort", "annotations": {"a": "b"}},
            "extraArgs": ["--access-log"],
            "nodeSelector": {"role": "edge"},
            "tolerations": [{"operator": "Exists"}],
        },
        "edge": {"enabled": True},
    },
    "tenants": {
        "region": "us-east",
        "edge": {"enabled": True},
        "gateway": {"auth": {"mode": "Required", "namespace": "tenants", "requestsPerMinute": 600, "burst": 20}},
    },
    "limits": {
        "region": "us-east",
        "edge": {"enabled": True},
        "gateway": {
            "auth": {"mode": "Required", "requestsPerMinute": 600, "tokensPerMinute": 2_500_000},
            "limits": {"enabled": True, "redis": {"secretRef": {"name": "redis-of-limits"}}},
            "ledger": {"enabled": True, "sink": "none:"},
        },
    },
    "front": {
        "region": "us-east",
        "edge": {"enabled": True},
        "gateway": {
            "tls": {"clientSecret": "front", "peerSecret": "peers"},
            "cors": {"origins": ["https://chat.example.com", "http://localhost:3000"]},
        },
    },
    "telemetry": {
        "region": "us-east",
        "edge": {"enabled": True},
        "tracing": {"endpoint": "http://otel-collector.observability:4318", "samplingPercent": 2.5},
        "logs": {"format": "json"},
    },
    "ledger": {
        "region": "us-east",
        "edge": {"enabled": True},
        "gateway": {
            "ledger": {
                "enabled": True,
                "sink": "file:///var/lib/holdfast-usage",
                "spoolSize": 64,
                "contentBytes": 4096,
                "volume": {"persistentVolumeClaim": {"claimName": "usage"}},
            },
        },
    },
    "ledger-with-a-password": {
        "region": "us-east",
        "gateway": {"ledger": {"enabled": True, "sinkSecret": "usage"}},
    },
    "no-relay": {"region": "us-east", "gateway": {"relay": {"enabled": False}}},
    "no-crds": {"region": "us-east", "crds": {"install": False}},
}


def render(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Every object of the chart."""
    texts = [text for path, text in rendered(values).items() if not path.endswith("NOTES.txt")]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def notes(values: dict[str, Any]) -> str:
    """What Helm tells who installs."""
    return next(text for path, text in rendered(values).items() if path.endswith("NOTES.txt"))


def rendered(values: dict[str, Any]) -> dict[str, str]:
    with helm_python.Chart.load(CHART) as chart:
        found: dict[str, str] = chart.render(values, name="holdfast", namespace="holdfast-system")
    return found


def find(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name)


@pytest.mark.parametrize("case", VALUES)
def test_the_chart_lints_clean(case: str) -> None:
    report = helm_python.lint(CHART, VALUES[case], strict=True)

    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", VALUES)
def test_what_the_chart_renders_is_valid_kubernetes(case: str, version: str) -> None:
    for each in render(VALUES[case]):
        kubernetes_validate.validate(each, version, strict=True)


def test_the_chart_brings_the_crds_of_the_types_and_keeps_them() -> None:
    objects = render(VALUES["least"])

    for expected in map(definition, DEFINITIONS):
        crd = find(objects, "CustomResourceDefinition", expected["metadata"]["name"])
        assert crd["spec"] == expected["spec"]
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_crds_can_be_left_out() -> None:
    assert not [each for each in render(VALUES["no-crds"]) if each["kind"] == "CustomResourceDefinition"]


def test_the_operator_may_write_every_kind_that_it_makes_and_no_other() -> None:
    objects = render(VALUES["least"])
    roles = [find(objects, kind, "holdfast-operator") for kind in ("ClusterRole", "Role")]
    writable = {
        resource
        for role in roles
        for rule in role["rules"]
        for resource in rule["resources"]
        if {"create", "update", "patch", "delete"} & set(rule["verbs"]) and "/" not in resource
    }

    assert writable == set(PLURALS.values()) - {"regions"}
    for role in roles:
        assert all("*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"]) for rule in role["rules"])


def test_a_gateway_may_only_read() -> None:
    role = find(render(VALUES["least"]), "ClusterRole", "holdfast-gateway")

    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}


def test_a_gateway_may_read_secrets_only_where_tenants_are_required_and_only_in_their_namespace() -> None:
    def rules(case: str) -> list[tuple[str, str | None, list[str]]]:
        return [
            (each["kind"], each["metadata"].get("namespace"), rule["verbs"])
            for each in render(VALUES[case])
            if each["kind"] in ("Role", "ClusterRole") and "gateway" in each["metadata"]["name"]
            for rule in each["rules"]
            if "secrets" in rule["resources"]
        ]

    assert rules("everything") == []
    assert rules("tenants") == [("Role", "tenants", ["list", "watch"])]


@pytest.mark.parametrize("gateway", ["holdfast-gateway", "holdfast-edge"])
def test_gateways_ask_for_keys_exactly_where_tenants_are_required(gateway: str) -> None:
    def flags(case: str) -> set[str]:
        pod = find(render(VALUES[case]), "Deployment", gateway)["spec"]["template"]["spec"]
        return {flag for each in pod["containers"] if each["name"] == "agent" for flag in each["args"]}

    assert {"--auth=Required", "--tenant-namespace=tenants", "--requests-per-minute=600"} <= flags("tenants")
    assert not [flag for flag in flags("everything") if flag.startswith("--auth")]


@pytest.mark.parametrize("gateway", ["holdfast-gateway", "holdfast-edge"])
def test_gateways_find_their_certificates_where_they_are_told(gateway: str) -> None:
    pod = find(render(VALUES["front"]), "Deployment", gateway)["spec"]["template"]["spec"]
    secrets = {each["name"]: each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}
    for container in [*pod["containers"], *pod["initContainers"]]:
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        assert {secrets[name]: path for name, path in mounts.items() if name in secrets} == {
            "front": "/etc/holdfast/client-tls",
            "peers": "/etc/holdfast/peer-tls",
        }
        if container["name"] in ("agent", "init"):
            told = {"--client-tls=/etc/holdfast/client-tls", "--peer-tls=/etc/holdfast/peer-tls"}
            assert {*told, "--peer-tls-mode=Required"} <= {*container["args"]}
            assert "--cors-origin=https://chat.example.com" in container["args"]
    envoy = next(each for each in pod["containers"] if each["name"] == "envoy")
    assert envoy["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"


@pytest.mark.parametrize(("mode", "by_tls"), [("Accepted", False), ("Preferred", True), ("Required", True)])
def test_observers_speak_tls_to_gateways_where_gateways_do(mode: str, by_tls: bool) -> None:
    values = {**VALUES["front"], "gateway": {"tls": {"peerSecret": "peers", "peerMode": mode}}}
    pod = find(render(values), "Deployment", "holdfast-operator")["spec"]["template"]["spec"]
    (operator,) = pod["containers"]
    assert ("--peer-tls=/etc/holdfast/peer-tls" in operator["args"]) == by_tls
    assert {"name": "peer-tls", "mountPath": "/etc/holdfast/peer-tls", "readOnly": True} in operator["volumeMounts"]
    assert {"name": "peer-tls", "secret": {"secretName": "peers"}} in pod["volumes"]

    (plain,) = find(render(VALUES["everything"]), "Deployment", "holdfast-operator")["spec"]["template"]["spec"][
        "containers"
    ]
    assert "--peer-tls=/etc/holdfast/peer-tls" not in plain["args"]


def test_who_installs_is_told_of_a_peer_port_that_is_open() -> None:
    def told(**gateway: Any) -> str:
        return notes({"region": "us-east", "gateway": gateway})

    assert "holdfast region join --region us-east" in told()
    assert "port 8081" not in told().lower()
    assert "needs no API key" in told(auth={"mode": "Required"})
    assert "needs no API key" not in told(auth={"mode": "Required"}, tls={"peerSecret": "peers"})
    assert "go on to Preferred" in told(tls={"peerSecret": "peers", "peerMode": "Accepted"})
    assert "go on to Required" in told(tls={"peerSecret": "peers", "peerMode": "Preferred"})


@pytest.mark.parametrize("kind", ["Deployment"])
def test_no_container_runs_as_root_or_may_write_its_image(kind: str) -> None:
    for each in render(VALUES["everything"]):
        if each["kind"] != kind:
            continue
        pod = each["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_a_gateway_is_given_the_same_options_at_start_and_while_it_runs() -> None:
    pod = find(render(VALUES["everything"]), "Deployment", "holdfast-gateway")["spec"]["template"]["spec"]
    [init] = pod["initContainers"]
    agent = next(each for each in pod["containers"] if each["name"] == "agent")

    assert init["args"][0] == "init"
    assert set(init["args"][1:]) == set(agent["args"][1:])


@pytest.mark.parametrize("gateway", ["holdfast-gateway", "holdfast-edge"])
def test_every_gateway_has_a_relay_that_is_given_the_gateways_options(gateway: str) -> None:
    pod = find(render(VALUES["everything"]), "Deployment", gateway)["spec"]["template"]["spec"]
    agent, relay = (next(each for each in pod["containers"] if each["name"] == name) for name in ("agent", "relay"))

    assert relay["args"][0] == "relay"
    assert set(agent["args"][1:]) < set(relay["args"][1:])
    assert "--relay-port=9904" in agent["args"]
    assert pod["terminationGracePeriodSeconds"] > 900
    assert "--drain=900" in relay["args"]


@pytest.mark.parametrize("gateway", ["holdfast-gateway", "holdfast-edge"])
def test_every_gateway_has_a_limiter_that_counts_in_the_redis_of_a_secret(gateway: str) -> None:
    pod = find(render(VALUES["limits"]), "Deployment", gateway)["spec"]["template"]["spec"]
    agent, limiter = (next(each for each in pod["containers"] if each["name"] == name) for name in ("agent", "limits"))

    wanted = {"--limits=127.0.0.1:9907", "--tokens-per-minute=2500000", "--ledger=/var/spool/holdfast"}
    assert wanted < set(agent["args"])
    assert "/var/spool/holdfast" in [each["mountPath"] for each in limiter["volumeMounts"]]
    assert limiter["args"][0] == "limits"
    assert set(agent["args"][1:]) <= set(limiter["args"][1:])
    [variable] = limiter["env"]
    assert variable["name"] == "HOLDFAST_LIMITS_STORE"
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "redis-of-limits", "key": "url"}


def test_a_default_of_tokens_that_nobody_would_count_is_refused() -> None:
    gateway = {"auth": {"mode": "Required", "tokensPerMinute": 5}, "limits": {"enabled": True}}
    with pytest.raises(helm_python.HelmError, match=r"gateway\.ledger\.enabled"):
        render({"region": "a", "gateway": gateway})


def test_another_service_may_count_in_the_limiters_place() -> None:
    gateway = {"auth": {"mode": "Required"}, "limits": {"enabled": True, "service": "ratelimit.infra:8081"}}
    pod = find(render({"region": "a", "gateway": gateway}), "Deployment", "holdfast-gateway")["spec"]["template"]

    assert "limits" not in [each["name"] for each in pod["spec"]["containers"]]
    assert "--limits=ratelimit.infra:8081" in pod["spec"]["initContainers"][0]["args"]


@pytest.mark.parametrize("gateway", ["holdfast-gateway", "holdfast-edge"])
def test_a_ledger_reads_the_spool_that_envoy_and_the_relay_write(gateway: str) -> None:
    pod = find(render(VALUES["ledger"]), "Deployment", gateway)["spec"]["template"]["spec"]
    found = {each["name"]: each for each in [*pod["initContainers"], *pod["containers"]]}

    for name in ("init", "agent", "relay", "ledger"):
        assert "--ledger=/var/spool/holdfast" in found[name]["args"]
    assert all({"name": "spool", "mountPath": "/var/spool/holdfast"} in each["volumeMounts"] for each in found.values())
    assert {"name": "usage", "mountPath": "/var/lib/holdfast-usage"} in found["ledger"]["volumeMounts"]
    assert {"name": "usage", "persistentVolumeClaim": {"claimName": "usage"}} in pod["volumes"]
    assert {"name": "spool", "emptyDir": {"sizeLimit": "128Mi"}} in pod["volumes"]
    env = {each["name"]: each for each in found["ledger"]["env"]}
    assert env["HOLDFAST_LEDGER_SINK"]["value"] == "file:///var/lib/holdfast-usage"

    parsed = run_ledger.make_context("ledger", found["ledger"]["args"][1:])
    assert parsed.params["spool_max"] == 64 * 1024**2
    assert parsed.params["gateway_name"] == "$(POD_NAME)"


def test_a_sink_with_a_password_comes_from_a_secret_and_none_is_refused() -> None:
    pod = find(render(VALUES["ledger-with-a-password"]), "Deployment", "holdfast-gateway")["spec"]["template"]["spec"]
    ledger = next(each for each in pod["containers"] if each["name"] == "ledger")
    env = {each["name"]: each for each in ledger["env"]}
    assert env["HOLDFAST_LEDGER_SINK"]["valueFrom"] == {"secretKeyRef": {"name": "usage", "key": "url"}}
    with pytest.raises(helm_python.HelmError, match="sink or sinkSecret"):
        render({"region": "us-east", "gateway": {"ledger": {"enabled": True}}})


def test_the_relay_can_be_left_out() -> None:
    pod = find(render(VALUES["no-relay"]), "Deployment", "holdfast-gateway")["spec"]["template"]["spec"]

    assert [each["name"] for each in pod["containers"]] == ["envoy", "agent"]
    assert not [argument for argument in pod["initContainers"][0]["args"] if "relay" in argument]


@pytest.mark.parametrize("gateway", ["holdfast-gateway", "holdfast-edge"])
def test_every_process_of_a_gateway_is_told_where_spans_go_and_how_lines_look(gateway: str) -> None:
    pod = find(render(VALUES["telemetry"]), "Deployment", gateway)["spec"]["template"]["spec"]
    for container in [*pod["containers"], *pod["initContainers"]]:
        assert container["args"][0] == "--log-format=json"
        if container["name"] in ("init", "agent", "relay"):
            assert {
                "--otlp-endpoint=http://otel-collector.observability:4318",
                "--trace-sampling=2.5",
                "--resource-attributes=holdfast.region=us-east",
            } <= {*container["args"]}
        main.make_context("holdfast-gateway", [*container["args"]]).close()
    envoy = next(each for each in pod["containers"] if each["name"] == "envoy")
    (header,) = envoy["readinessProbe"]["httpGet"]["httpHeaders"]
    assert header["value"].endswith("-00"), "a probe is in no trace"


def test_the_operator_is_told_what_to_tell_engines() -> None:
    def args(case: str) -> list[str]:
        operator = find(render(VALUES[case]), "Deployment", "holdfast-operator")
        return list(operator["spec"]["template"]["spec"]["containers"][0]["args"])

    told = {"--otlp-endpoint=http://otel-collector.observability:4318", "--trace-sampling=2.5", "--log-format=json"}
    assert told <= {*args("telemetry")}
    assert not [each for each in args("least") if each.startswith(("--otlp", "--trace", "--log-format"))]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "region"),
        ({"region": "US East"}, "region"),
        ({"region": "a", "gatway": {}}, "gatway"),
        ({"region": "a", "gateway": {"exposure": {"type": "Magic"}}}, "LoadBalancer"),
        ({"region": "a", "gateway": {"replicas": 0}}, "replicas"),
        ({"region": "a", "tracing": {"endpoint": "https://otel:4318"}}, "endpoint"),
        ({"region": "a", "logs": {"format": "xml"}}, "format"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict[str, Any], words: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=words):
        render(values)
