"""`kubectl holdfast` against three real API servers, with a leader that the tests play."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from tests.integration.cli.leader import lead_once, leading, populate
from tests.integration.cli.servers import Clusters
from tests.integration.cli.test_join import first_time

from holdfast.api import names
from holdfast.cli.join import join
from holdfast.cli.kubectl import main
from holdfast.cli.server import path

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def served(clusters: Clusters) -> Iterator[Clusters]:
    join(first_time(clusters))
    populate(clusters)
    lead_once(clusters)
    yield clusters
    for server in clusters.servers.values():
        server.delete(path("RegionPlan", "default", "chat"))
        server.delete(path("LLMService", "default", "chat"))


def run(clusters: Clusters, *arguments: str, region: str = "us-east") -> Result:
    kubeconfig = f"--kubeconfig={clusters.regions[region].kubeconfig}"
    result = CliRunner().invoke(main, [*arguments, kubeconfig])
    print(f"$ kubectl holdfast {' '.join(arguments)}\n{result.output}")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert all(len(line) <= 120 for line in result.stdout.splitlines() if "-o=json" not in arguments)
    return result


def annotations(clusters: Clusters, region: str) -> dict[str, str]:
    found: dict[str, str] = clusters.servers["us-east"].get(path("Region", name=region))["metadata"].get("annotations")
    return found or {}


def test_status_shows_what_every_observer_sees_and_why_traffic_is_where_it_is(served: Clusters) -> None:
    result = run(served, "status")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "Leader  us-east, epoch 7, by the Lease of ap-south, eu-west, us-east"
    assert lines[2].split() == [*("REGION", "ROLE", "GATEWAY", "ORDER", "SEEN", "BY", "ap-south", "eu-west", "us-east")]
    assert "default/chat edit 4, held by ap-south, eu-west, us-east; planned by us-east, epoch 7, edit 4" in lines
    rows = [line.split() for line in lines]
    assert ["us-east", "Serving", "100%", "100", "1/1", "Healthy", "Healthy", "Healthy"] in rows
    assert "  eu-west: Serving, Steady: eu-west has its whole share." in lines


def test_every_answer_can_be_read_by_programs(served: Clusters) -> None:
    status = json.loads(run(served, "status", "-o=json").stdout)
    assert status["leader"] == {"region": "us-east", "epoch": 7}
    assert status["readFrom"] == ["ap-south", "eu-west", "us-east"]
    assert status["services"][0]["regions"][0]["seen"] == dict.fromkeys(status["readFrom"], "Healthy")
    [first, *_] = yaml.safe_load(run(served, "plan", "chat", "-oyaml").stdout)
    assert first["spec"]["epoch"] == 7


def test_plan_shows_what_is_stored_where(served: Clusters) -> None:
    rows = [line.split() for line in run(served, "plan").stdout.splitlines()]
    assert rows[0] == ["SERVICE", "REGION", "EPOCH", "LEADER", "EDIT", "REVISION", "ENGINES", "TRAFFIC"]
    assert [row[:5] for row in rows[1:]] == [
        ["default/chat", region, "7", "us-east", "4"] for region in ("eu-west", "us-east")
    ]
    assert "There is no service nothing in default." in run(served, "plan", "nothing").output


def test_a_namespace_without_services_says_where_there_are_some(served: Clusters) -> None:
    assert (
        "No services in namespace kube-system; -A shows the 1 of all" in run(served, "status", "-n=kube-system").stdout
    )


def test_a_drain_waits_until_every_plan_says_so_and_undrain_follows_the_ramp(served: Clusters) -> None:
    with leading(served):
        result = run(served, "drain", "eu-west", "--wait", "--timeout=30s")
        assert result.exit_code == 0
        assert "Done: eu-west has no traffic in 1 service." in result.stdout
        assert annotations(served, "eu-west")[names.DRAIN_ANNOTATION].endswith("Z")
        assert "s ago, DrainRequested: Somebody asked to drain eu-west." in run(served, "status").stdout
        result = run(served, "undrain", "eu-west", "--wait", "--timeout=30s")
        assert result.exit_code == 0
        assert "default/chat: eu-west is Ramping with 25% (RampingBack)" in result.stderr
        assert "Done: eu-west has its whole share in 1 service." in result.stdout


def test_a_drain_that_the_leader_refuses_ends_with_its_sentence(served: Clusters) -> None:
    with leading(served):
        assert run(served, "drain", "eu-west", "--wait").exit_code == 0
        result = run(served, "drain", "us-east", "--wait", "--override")
        assert result.exit_code == 1
        assert "DrainRefused: Somebody asked to drain us-east. Its traffic stays, as no other region" in result.stdout
        assert annotations(served, "us-east")[names.OVERRIDE_ANNOTATION] == "true"
        assert run(served, "undrain", "us-east", "--wait").exit_code == 0
        assert names.OVERRIDE_ANNOTATION not in annotations(served, "us-east")
        assert run(served, "undrain", "eu-west", "--wait").exit_code == 0


def test_a_failover_that_would_be_refused_orders_nothing(served: Clusters) -> None:
    with leading(served):
        assert run(served, "failover", "eu-west", "--wait").exit_code == 0
        before = annotations(served, "us-east")
        result = run(served, "failover", "us-east", "--override")
        assert result.exit_code == 1
        assert "Nothing was ordered, as it would be refused. default/chat: Somebody asked to drain us-" in result.output
        assert annotations(served, "us-east") == before
        assert run(served, "undrain", "eu-west", "--wait").exit_code == 0


def test_without_a_leader_waiting_ends_after_its_time(served: Clusters) -> None:
    result = run(served, "drain", "us-east", "--wait", "--timeout=1s")
    assert result.exit_code == 1
    assert "Not done within 1s; the order stands." in result.stderr
    run(served, "undrain", "us-east")


def test_an_order_may_be_given_in_any_cluster_and_the_latest_wins(served: Clusters) -> None:
    future = {names.DRAIN_ANNOTATION: "2099-01-01T00:00:00.000000Z"}
    served.servers["eu-west"].merge(path("Region", name="us-east"), {"metadata": {"annotations": future}}, "test")
    run(served, "undrain", "us-east", region="us-east")
    assert annotations(served, "us-east")[names.UNDRAIN_ANNOTATION] == "2099-01-01T00:00:00.000001Z"
    assert all(line.split()[3] == "-" for line in run(served, "status").stdout.splitlines()[3:6])


def test_events_about_services_and_regions_are_shown_and_no_others(served: Clusters) -> None:
    def create(name: str, kind: str, api_version: str, **about: str) -> None:
        body = {
            "metadata": {"name": name, "namespace": "default"},
            "involvedObject": {"kind": kind, "apiVersion": api_version, "name": name, **about},
            **{
                "type": "Warning",
                "reason": "RegionUnhealthy",
                "message": "2 of 3 observers see eu-west fail.",
                "count": 3,
            },
            "lastTimestamp": "2026-01-01T00:00:00Z",
        }
        served.servers["us-east"].request("POST", path("Event", "default"), body=body)

    create("chat", "LLMService", names.API_VERSION, namespace="default")
    create("eu-west", "Region", names.API_VERSION)
    create("pod", "Pod", "v1", namespace="default")
    lines = run(served, "events").stdout.splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["AGO", "TYPE", "REASON", "ABOUT", "MESSAGE"]
    assert "LLMService default/chat  2 of 3 observers see eu-west fail. (3 times)" in lines[1]
    assert "Region eu-west" in run(served, "events", "-n=kube-system").stdout


def test_who_may_only_look_learns_what_was_not_read(served: Clusters, tmp_path: Path) -> None:
    peer = tmp_path / "peer"
    peer.write_text(served.stored_kubeconfig("us-east", "eu-west"))
    result = CliRunner().invoke(main, ["status", f"--kubeconfig={peer}", "-n=default"])
    print(result.output)
    assert "us-east is not read: you may not read Secrets in namespace holdfast-system." in result.stdout
    assert "Leader  us-east, epoch 7, by the Lease of eu-west" in result.stdout
    result = CliRunner().invoke(main, ["drain", "us-east", f"--kubeconfig={peer}"])
    assert result.exit_code == 1
    assert "You need the right to patch regions." in result.output


@pytest.mark.parametrize("command", ["drain", "undrain", "failover"])
def test_an_unknown_region_is_answered_with_the_known_ones(served: Clusters, command: str) -> None:
    result = run(served, command, "mars")
    assert result.exit_code == 1
    assert "There is no region mars; this cluster knows: ap-south, eu-west, us-east." in result.output


def test_a_witness_cannot_be_drained(served: Clusters) -> None:
    assert "ap-south is a witness: it has no traffic to move away." in run(served, "drain", "ap-south").output


def test_no_answer_and_no_kubeconfig_are_said_in_one_sentence(served: Clusters, tmp_path: Path) -> None:
    text = served.regions["us-east"].kubeconfig.read_text().replace(":6443", ":6444")
    (tmp_path / "dead").write_text(text)
    result = CliRunner().invoke(main, ["status", f"--kubeconfig={tmp_path / 'dead'}"])
    assert result.exit_code == 1
    [line] = result.output.splitlines()
    assert line.startswith("Error: cluster: no answer from https://198.")
    result = CliRunner().invoke(main, ["status", "--kubeconfig=/nowhere"])
    assert result.output.splitlines() == ["Error: cluster: there is no file /nowhere."]


def test_kubectl_finds_the_command(served: Clusters) -> None:
    kubectl = shutil.which("kubectl")
    here = Path(sys.executable).parent
    if kubectl is None or not (here / "kubectl-holdfast").exists():
        pytest.skip("kubectl or the installed script is missing")
    environment: dict[str, Any] = os.environ | {"PATH": f"{here}:{os.environ['PATH']}"}
    environment["KUBECONFIG"] = str(served.regions["us-east"].kubeconfig)
    command = [kubectl, "holdfast", "status"]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert output.startswith("Leader  us-east, epoch 7")
    assert "\x1b" not in output
