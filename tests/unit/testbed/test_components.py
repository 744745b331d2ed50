"""The components' command lines and files."""

from __future__ import annotations

import base64
import json

import yaml

from holdfast_testbed.bare.components import SYSTEM_TOKENS, Component, command, expected
from holdfast_testbed.bare.configs import cni, kubeconfig, region_files, tokens_csv
from holdfast_testbed.bare.site import Site

TOKENS = {name: f"token-of-{name}" for name in SYSTEM_TOKENS}


def flags(component: Component, site: Site) -> dict[str, str]:
    pairs = (word.removeprefix("--").partition("=") for word in command(component, site)[1:] if word.startswith("--"))
    return {name: value for name, _, value in pairs}


def test_the_api_server_is_reached_at_the_regions_address_and_etcd_at_none(site: Site) -> None:
    server, etcd = flags(Component.API_SERVER, site), flags(Component.ETCD, site)
    assert server["bind-address"] == server["advertise-address"] == str(site.addresses.address)
    assert etcd["listen-client-urls"] == server["etcd-servers"] == "http://127.0.0.1:2379"


def test_services_and_pods_get_the_regions_own_ranges(site: Site) -> None:
    assert flags(Component.API_SERVER, site)["service-cluster-ip-range"] == str(site.addresses.services)
    assert json.loads(cni(site))["plugins"][0]["ipam"]["ranges"] == [[{"subnet": str(site.addresses.pods)}]]


def test_the_node_says_in_which_region_it_is(site: Site) -> None:
    labels = flags(Component.KUBELET, site)["node-labels"]
    assert labels == "topology.kubernetes.io/region=eu-west,topology.kubernetes.io/zone=eu-west-a"


def test_a_control_plane_alone_runs_three_components(site: Site) -> None:
    assert expected(True) == (Component.ETCD, Component.API_SERVER, Component.CONTROLLERS)
    assert set(expected(False)) == set(Component)
    assert all(command(component, site) for component in Component)


def test_the_holder_of_the_mounts_starts_before_those_that_need_them() -> None:
    order = expected(False)
    assert order.index(Component.HOLDER) < min(order.index(Component.CONTAINERD), order.index(Component.KUBELET))


def test_a_kubeconfig_carries_the_authority_and_is_valid_outside_of_the_machines_files(site: Site) -> None:
    document = yaml.safe_load(kubeconfig(site, "admin", "secret", b"CERTIFICATE"))
    cluster = document["clusters"][0]["cluster"]
    assert base64.b64decode(cluster["certificate-authority-data"]) == b"CERTIFICATE"
    assert cluster["server"] == f"https://{site.addresses.address}:6443"
    assert document["users"][0]["user"] == {"token": "secret"}


def test_the_kubelet_is_its_node_and_the_administrator_may_do_everything(site: Site) -> None:
    lines = tokens_csv(site, TOKENS).splitlines()
    assert 'token-of-kubelet,system:node:eu-west-0,system:node:eu-west-0,"system:nodes"' in lines
    assert 'token-of-admin,holdfast-admin,holdfast-admin,"system:masters"' in lines


def test_every_file_that_a_command_line_names_is_rendered(site: Site) -> None:
    files = region_files(site, TOKENS, b"CERTIFICATE")
    named = {
        word.partition("=")[2] or word
        for component in Component
        for word in command(component, site)
        if str(site.config) in word
    }
    assert {path.removeprefix(f"{site.config}/") for path in named} <= files.keys()


def test_the_administrators_kubeconfig_is_not_among_the_components(site: Site) -> None:
    assert "admin.kubeconfig" not in region_files(site, TOKENS, b"CERTIFICATE")


def test_the_kubelet_gets_private_copies_of_the_machines_settings(site: Site) -> None:
    script = region_files(site, TOKENS, b"")["mounts.sh"]
    assert f"mount --bind '{site.config}/sysctl/vm/overcommit_memory' /proc/sys/vm/overcommit_memory" in script
    assert script.index("--make-rshared") < script.index("/var/lib/kubelet")
