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


def backbone_creation(plan: AddressPlan) -> list[list[str]]:
    """Makes the bridge."""
    return [["ip", "link", "add", plan.bridge, "type", "bridge"]]


def backbone_settings(plan: AddressPlan) -> list[list[str]]:
    """Sets the bridge up and keeps the range inside this machine; may be repeated."""
    return [
        ["ip", "addr", "replace", f"{plan.host}/{plan.backbone.prefixlen}", "dev", plan.bridge],
        ["ip", "link", "set", plan.bridge, "up"],
        ["ip", "route", "replace", "blackhole", str(plan.network)],
    ]


def region_creation(site: Site) -> list[list[str]]:
    """Makes a region's namespace and the link into it."""
    peer = ["peer", "name", "eth0", "address", hardware_address(site.addresses.address), "netns", site.namespace]
    return [
        ["ip", "netns", "add", site.namespace],
        ["ip", "link", "add", site.addresses.link, "type", "veth", *peer],
    ]


def region_settings(site: Site) -> list[list[str]]:
    """Gives a region its address and joins it to the backbone; may be repeated, and mends a link that was cut."""
    where, inside = site.addresses, ["ip", "-n", site.namespace]
    return [
        [*inside, "link", "set", "lo", "up"],
        [*inside, "addr", "replace", f"{where.address}/{site.plan.backbone.prefixlen}", "dev", "eth0"],
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
    """Make the bridge unless it is there, and set it up."""
    commands = backbone_settings(plan)
    if not link_exists(plan.bridge):
        taken = foreign_routes(plan.network)
        if taken:
            raise BedConflictError(
                f"The testbed needs the addresses {plan.network}, but this machine routes {taken[0]} elsewhere; "
                "remove that route, or use another range with `--name`."
            )
        commands = backbone_creation(plan) + commands
    for command in commands:
        run(command)
    if _firewall_sees_bridges() and not succeeds(["iptables", "-w", "-C", *_forward(plan)]):
        run(["iptables", "-w", "-I", *_forward(plan)])


def ensure_region(site: Site) -> None:
    """Make the region's namespace and link unless both are there, and set them up."""
    commands = region_settings(site)
    if not is_made(site):
        remove_region(site)
        commands = region_creation(site) + commands
    for command in commands:
        run(command)


def is_made(site: Site) -> bool:
    """Whether the region has its namespace and its link."""
    return site.namespace_path.exists() and link_exists(site.addresses.link)


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
    if _firewall_sees_bridges():
        succeeds(["iptables", "-w", "-D", *_forward(plan)])


def _firewall_sees_bridges() -> bool:
    """Whether packets that only cross a bridge pass the host's firewall, as where Docker runs, which drops them."""
    setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    return setting.exists() and setting.read_text().strip() == "1"


def _forward(plan: AddressPlan) -> list[str]:
    return ["FORWARD", "-i", plan.bridge, "-o", plan.bridge, "-j", "ACCEPT"]


def unmount_namespaces() -> None:
    """Undo the mount that `ip netns` makes for its folder, unless a namespace of anybody is left in it."""
    folder = Path("/run/netns")
    if folder.is_mount() and not any(folder.iterdir()):
        succeeds(["umount", str(folder)])


def link_exists(name: str) -> bool:
    """Whether the host has a link of that name."""
    return Path("/sys/class/net", name).exists()


def foreign_routes(network: IPv4Network) -> list[str]:
    """Routes of the host into the range that are not a testbed's."""
    routes = json.loads(run(["ip", "-j", "-4", "route", "show", "table", "all"]) or "[]")
    return overlapping_routes(routes, network)


def overlapping_routes(routes: list[dict[str, str]], network: IPv4Network) -> list[str]:
    """Those routes that lead into the range, leaving out blackholes and those so wide that they mean "all"."""
    found = []
    for route in routes:
        target = route.get("dst", "default")
        if target == "default" or route.get("type") == "blackhole":
            continue
        candidate = IPv4Network(target, strict=False)
        if candidate.prefixlen >= 8 and candidate.overlaps(network):
            found.append(f"{target} (dev {route.get('dev', '?')})")
    return found
