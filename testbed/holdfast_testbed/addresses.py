"""Plans every address of a testbed. Pure: names and a slot number in, addresses out.

The whole of 198.18.0.0/15 (RFC 2544, benchmarks: used nowhere on the internet) is cut into 16 slots of /19, one per
testbed, so that several testbeds stand side by side. A slot is cut into eight /22: the first holds the backbone that
joins the regions with the host, each following one belongs to a region: a /24 for pods and a /24 for services.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import islice

from .errors import TestbedError

TEST_RANGE = IPv4Network("198.18.0.0/15")
SLOTS = 16
MAX_REGIONS = 7

# The first N are taken; the first three are what examples and drills speak of.
REGION_NAMES = ("us-east", "eu-west", "ap-south", "sa-east", "af-south", "us-west", "ap-north")


@dataclass(frozen=True)
class RegionAddresses:
    """Where one region lives."""

    name: str
    index: int
    address: IPv4Address
    pods: IPv4Network
    services: IPv4Network
    link: str

    @property
    def server(self) -> str:
        """URL of the region's API server."""
        return f"https://{self.address}:6443"

    @property
    def kubernetes_service(self) -> IPv4Address:
        """ClusterIP of the Service `kubernetes`: the first of the range, by Kubernetes' own rule."""
        return self.services.network_address + 1


@dataclass(frozen=True)
class AddressPlan:
    """Where one testbed lives."""

    slot: int
    network: IPv4Network
    backbone: IPv4Network
    host: IPv4Address
    bridge: str
    regions: tuple[RegionAddresses, ...]

    def region(self, name: str) -> RegionAddresses:
        """Addresses of the named region; KeyError if the plan has none of that name."""
        for region in self.regions:
            if region.name == name:
                return region
        raise KeyError(name)


def region_names(count: int) -> tuple[str, ...]:
    """The first `count` default region names."""
    if not 1 <= count <= MAX_REGIONS:
        raise TestbedError(f"A testbed has 1 to {MAX_REGIONS} regions, not {count}.")
    return REGION_NAMES[:count]


def plan_addresses(slot: int, names: tuple[str, ...]) -> AddressPlan:
    """Addresses of the testbed in `slot` with these regions, in this order."""
    if not 0 <= slot < SLOTS:
        raise TestbedError(f"There are {SLOTS} slots for testbeds; {slot} is none of them.")
    if not 1 <= len(names) <= MAX_REGIONS:
        raise TestbedError(f"A testbed has 1 to {MAX_REGIONS} regions, not {len(names)}.")
    network = next(islice(TEST_RANGE.subnets(new_prefix=19), slot, None))
    backbone = next(network.subnets(new_prefix=24))
    bridge = f"hf{slot}"
    blocks = list(network.subnets(new_prefix=22))
    regions = []
    for index, name in enumerate(names, start=1):
        pods, services, *_ = blocks[index].subnets(new_prefix=24)
        address = backbone.network_address + 10 + index
        regions.append(RegionAddresses(name, index, address, pods, services, f"{bridge}-{index}"))
    return AddressPlan(slot, network, backbone, backbone.network_address + 1, bridge, tuple(regions))
