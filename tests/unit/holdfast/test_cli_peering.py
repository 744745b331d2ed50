"""What joining writes: least rights, kubeconfigs, and `Region` objects that keep what others set."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from holdfast.__main__ import main
from holdfast.api.names import LEASE, NAMESPACE, OBSERVER_LEASE
from holdfast.api.region import RegionRole
from holdfast.cli import peering
from holdfast.cli.join import Cluster, JoinError, join
from holdfast.cli.peering import Endpoint
from holdfast.cli.server import Server
from holdfast.errors import ConfigError


def test_a_reader_may_do_these_things_and_no_others() -> None:
    [cluster_role, role] = peering.roles()
    granted = {
        (group, resource, verb, *rule.get("resourceNames", ()))
        for rule in (*cluster_role["rules"], *role["rules"])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    ours = "serving.holdfast.dev"
    read = {
        (ours, kind, verb) for kind in ("llmservices", "regions", "regionplans") for verb in ("get", "list", "watch")
    }
    plans = {(ours, "regionplans", verb) for verb in ("create", "update", "patch", "delete")}
    leases = {("coordination.k8s.io", "leases", verb, LEASE) for verb in ("get", "update", "patch")}
    leases |= {("coordination.k8s.io", "leases", "create"), ("coordination.k8s.io", "leases", "get", OBSERVER_LEASE)}
    assert granted == read | plans | leases
    assert role["metadata"]["namespace"] == NAMESPACE


def test_the_leases_role_is_bound_in_the_operators_namespace_only() -> None:
    kinds = {each["kind"]: each for each in peering.access("us-east")}
    assert set(kinds) == {"ServiceAccount", "ClusterRoleBinding", "RoleBinding"}
    assert kinds["RoleBinding"]["metadata"]["namespace"] == NAMESPACE
    for binding in ("RoleBinding", "ClusterRoleBinding"):
        [subject] = kinds[binding]["subjects"]
        assert subject == {"kind": "ServiceAccount", "name": "holdfast-peer-us-east", "namespace": NAMESPACE}


def test_a_kubeconfig_holds_the_servers_address_its_authority_and_the_token() -> None:
    endpoint = Endpoint("https://10.0.0.1:6443", b"PEM", tls_server_name="api.example.com")
    config = yaml.safe_load(peering.kubeconfig("eu-west", endpoint, "us-east", "secret"))
    [cluster] = config["clusters"]
    assert cluster["cluster"] == {
        "server": "https://10.0.0.1:6443",
        "certificate-authority-data": base64.b64encode(b"PEM").decode(),
        "tls-server-name": "api.example.com",
    }
    assert config["users"][0]["user"] == {"token": "secret"}
    assert config["contexts"][0]["context"]["user"] == config["users"][0]["name"] == "holdfast-peer-us-east"


def region(manager: str = "", fields: dict[str, Any] | None = None) -> dict[str, Any]:
    spec = {"gateway": {"address": "old", "port": 8080, "peerPort": 9000}, "preference": 7, "role": "Serving"}
    entry = {"manager": manager, "operation": "Apply", "fieldsV1": {"f:spec": fields or {}}}
    return {"metadata": {"name": "eu-west", "managedFields": [entry] if manager else []}, "spec": spec}


def build(**given: Any) -> dict[str, Any]:
    arguments = {"address": None, "role": None, "here": None, "elsewhere": None, **given}
    spec: dict[str, Any] = peering.region_object("eu-west", **arguments)["spec"]
    assert spec.pop("kubeconfig") == {"name": "holdfast-region-eu-west", "key": "kubeconfig"}
    return spec


def test_an_existing_region_that_others_manage_only_gets_its_kubeconfig() -> None:
    assert build(here=region("kubectl", {"f:gateway": {"f:address": {}}})) == {}


def test_what_joining_applied_before_is_applied_again() -> None:
    fields = {"f:gateway": {".": {}, "f:address": {}}, "f:role": {}}
    assert build(here=region(peering.MANAGER, fields)) == {"gateway": {"address": "old"}, "role": "Serving"}


def test_what_is_given_wins_over_what_was_applied_before() -> None:
    fields = {"f:gateway": {"f:address": {}}, "f:role": {}}
    spec = build(here=region(peering.MANAGER, fields), address="new", role=RegionRole.WITNESS)
    assert spec == {"gateway": {"address": "new"}, "role": "Witness"}


def test_a_cluster_without_the_region_starts_from_another_ones() -> None:
    elsewhere = region()
    elsewhere["spec"]["kubeconfig"] = {"name": "another"}
    spec = build(elsewhere=elsewhere, address="new")
    assert spec["gateway"] == {"address": "new", "port": 8080, "peerPort": 9000}
    assert spec["preference"] == 7
    assert elsewhere["spec"]["gateway"]["address"] == "old"


@pytest.mark.parametrize(
    ("stored", "wanted", "held"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": [{"x": 1, "y": 2}]}, {"a": [{"x": 1}]}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": {}}, {"a": {"b": 1}}, False),
        ({}, {"a": 1}, False),
    ],
)
def test_an_object_holds_what_is_wanted_if_it_says_all_of_it(stored: Any, wanted: Any, held: bool) -> None:
    assert peering.holds(stored, wanted) is held


def test_tokens_are_numbered() -> None:
    assert peering.token_number(peering.token_name("us-east-1", 12)) == 12
    assert peering.token_number("made-by-hand") == 0


@pytest.mark.parametrize(
    ("name", "usable"),
    [("us-east", True), ("a" * 40, True), ("a" * 41, False), ("Us", False), ("-a", False), ("", False)],
)
def test_a_regions_name_must_fit_into_the_names_of_objects(name: str, usable: bool) -> None:
    assert peering.usable_name(name) is usable


def test_what_is_wrong_without_asking_anybody_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(JoinError) as caught:
        join([Cluster("a", file), Cluster("a", file), Cluster("B", tmp_path / "none")])
    assert str(caught.value).splitlines() == [
        "a is named twice.",
        "'B' cannot name a region: use at most 40 lower-case letters, digits and '-'.",
        f"B: there is no file {tmp_path / 'none'}.",
    ]
    with pytest.raises(JoinError, match="two clusters or more"):
        join([Cluster("a", file)])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--peer=b"], "--peer 'b' is not of the form NAME=FILE or NAME=FILE#CONTEXT."),
        (["--peer=b=f", "--peer=b=g"], "--peer: b is named twice."),
        (["--peer=a=f"], "--peer: a is named twice."),
        (["--peer=b=f", "--server=c=https://x"], "--server 'c=https://x': c is neither --region nor a --peer."),
        (["--peer=b=f", "--gateway-address=b"], "--gateway-address 'b' is not of the form NAME=VALUE."),
        (["--peer=b=f", "--role=b=Boss"], "--role 'Boss' is neither Serving nor Witness."),
    ],
)
def test_the_command_names_the_option_that_is_wrong(arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(main, ["region", "join", "--region=a", "--kubeconfig=/x", *arguments])
    assert result.exit_code == 2
    assert sentence in result.output


@pytest.mark.parametrize(
    ("user", "cluster"),
    [
        ({"exec": {"command": "sh"}}, {"server": "https://x"}),
        ({"auth-provider": {"name": "gcp"}}, {"server": "https://x"}),
        ({"tokenFile": "/etc/shadow"}, {"server": "https://x"}),
        ({"token": "t"}, {"server": "https://x", "certificate-authority": "/etc/passwd"}),
    ],
)
def test_a_kubeconfig_from_a_cluster_runs_nothing_and_reads_no_file(
    user: dict[str, Any], cluster: dict[str, Any]
) -> None:
    document = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    with pytest.raises(ConfigError, match="which is not used"):
        Server.from_secret("eu-west", yaml.safe_dump(document))


@pytest.mark.parametrize("text", ["", "7", "clusters: []", "{", "\tx"])
def test_a_kubeconfig_that_is_none_is_said_to_be_so(text: str) -> None:
    with pytest.raises(ConfigError, match="eu-west: its kubeconfig cannot be read"):
        Server.from_secret("eu-west", text)
