"""Builds and removes the network: a bridge as the backbone, and a namespace with one link to it for every region.

Nothing leaves the machine: the testbed's whole range has a blackhole route, over which the routes of living regions
take precedence. Command lists are pure; `ensure_*` and `remove_*` run them.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from holdfast_testbed.addresses import AddressPlan
from holdfast_testbed.commands import run, succeeds
from holdfast_testbed.errors import BedConflictError

from .components import enter_network
from .site import Site


def backbone_commands(plan: AddressPlan) -> list[list[str]]:
    """Makes the bridge and keeps the range inside this machine."""
    return [
        ["ip", "link", "add", plan.bridge, "type", "bridge"],
        ["ip", "addr", "add", f"{plan.host}/{plan.backbone.prefixlen}", "dev", plan.bridge],
        ["ip", "link", "set", plan.bridge, "up"],
        ["ip", "route", "replace", "blackhole", str(plan.network)],
    ]


def region_commands(site: Site) -> list[list[str]]:
    """Makes a region's namespace and links it to the backbone."""
    where, inside = site.addresses, ["ip", "-n", site.namespace]
    link = ["ip", "link", "add", where.link, "type", "veth"]
    return [
        ["ip", "netns", "add", site.namespace],
        [*link, "peer", "name", "eth0", "address", hardware_address(where.address), "netns", site.namespace],
        [*inside, "link", "set", "lo", "up"],
        [*inside, "addr", "add", f"{where.address}/{site.plan.backbone.prefixlen}", "dev", "eth0"],
        [*inside, "link", "set", "eth0", "up"],
        [*enter_network(site), "sysctl", "-qw", "net.ipv4.ip_forward=1"],
        ["ip", "link", "set", where.link, "master", site.plan.bridge, "up"],
        ["ip", "route", "replace", str(where.pods), "via", str(where.address), "dev", site.plan.bridge],
    ]


def hardware_address(address: IPv4Address) -> str:
    """The link address that goes with an address.

    It is the same when a region comes back, so that its neighbours' ARP caches still hold: a stale entry there would
    add up to ten seconds to every return.
    """
    return ":".join(f"{octet:02x}" for octet in (0x02, 0x48, *address.packed))


def ensure_backbone(plan: AddressPlan) -> None:
    """Make the bridge unless it is there."""
    if not link_exists(plan.bridge):
        taken = foreign_routes(plan.network)
        if taken:
            raise BedConflictError(
                f"The testbed needs the addresses {plan.network}, but this machine routes {taken[0]} elsewhere; "
                "remove that route, or use another range with `--name`."
            )
        for command in backbone_commands(plan):
            run(command)


def ensure_region(site: Site) -> None:
    """Make the region's namespace and link unless both are there."""
    if site.namespace_path.exists() and link_exists(site.addresses.link):
        return
    remove_region(site)
    for command in region_commands(site):
        run(command)


def remove_region(site: Site) -> None:
    """Remove the region's namespace and link; its processes have ended before."""
    if link_exists(site.addresses.link):
        run(["ip", "link", "del", site.addresses.link])
    if site.namespace_path.exists():
        run(["ip", "netns", "del", site.namespace])


def remove_backbone(plan: AddressPlan) -> None:
    """Remove the bridge and the routes."""
    if link_exists(plan.bridge):
        run(["ip", "link", "del", plan.bridge])
    succeeds(["ip", "route", "del", "blackhole", str(plan.network)])


def link_exists(name: str) -> bool:
    """Whether the host has a link of that name."""
    return Path("/sys/class/net", name).exists()


def foreign_routes(network: IPv4Network) -> list[str]:
    """Routes of the host into the range that are not a testbed's."""
    routes = json.loads(run(["ip", "-j", "-4", "route", "show", "table", "all"]) or "[]")
    return overlapping_routes(routes, network)


def overlapping_routes(routes: list[dict[str, str]], network: IPv4Network) -> list[str]:
    """Those routes that lead into the range, leaving out default and blackhole routes."""
    found = []
    for route in routes:
        target = route.get("dst", "default")
        if target == "default" or route.get("type") == "blackhole":
            continue
        candidate = IPv4Network(target, strict=False)
        if candidate.prefixlen > 0 and candidate.overlaps(network):
            found.append(f"{target} (dev {route.get('dev', '?')})")
    return found


def connect(site: Site) -> None:
    """Put the region's link on the backbone and up."""
    run(["ip", "link", "set", site.addresses.link, "master", site.plan.bridge, "up"])
