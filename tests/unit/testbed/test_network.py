"""The commands that build the network."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from holdfast_testbed.bare.network import (
    backbone_settings,
    hardware_address,
    overlapping_routes,
    region_creation,
    region_settings,
)
from holdfast_testbed.bare.site import Site


def test_settings_may_be_repeated(site: Site) -> None:
    for command in backbone_settings(site.plan) + region_settings(site):
        assert "add" not in command


def test_packets_of_the_range_never_leave_the_machine(site: Site) -> None:
    assert ["ip", "route", "replace", "blackhole", "198.18.96.0/19"] in backbone_settings(site.plan)


def test_a_region_returns_with_the_link_address_it_had(site: Site) -> None:
    assert hardware_address(IPv4Address("198.18.96.12")) == "02:48:c6:12:60:0c"
    assert any("02:48:c6:12:60:0c" in command for command in region_creation(site))


def test_commands_in_the_region_do_not_use_ip_netns_exec(site: Site) -> None:
    assert not any(command[:3] == ["ip", "netns", "exec"] for command in region_settings(site))


@pytest.mark.parametrize(
    ("route", "in_the_way"),
    [
        ({"dst": "default", "dev": "eth0"}, False),
        ({"dst": "128.0.0.0/1", "dev": "tun0"}, False),
        ({"dst": "198.18.0.0/16", "dev": "tun0"}, True),
        ({"dst": "198.18.97.5", "dev": "tun0"}, True),
        ({"dst": "198.18.64.0/19", "dev": "hf2"}, False),
        ({"dst": "198.18.96.0/19", "type": "blackhole"}, False),
        ({"dst": "10.0.0.0/8", "dev": "eth0"}, False),
    ],
)
def test_only_routes_into_the_range_are_in_the_way(route: dict[str, str], in_the_way: bool) -> None:
    assert bool(overlapping_routes([route], IPv4Network("198.18.96.0/19"))) is in_the_way
