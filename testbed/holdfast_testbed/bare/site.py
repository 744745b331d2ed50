"""One bare region's places on this machine: folders, sockets, namespace, cgroup. Pure: only names are computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from holdfast_testbed.addresses import AddressPlan, RegionAddresses
from holdfast_testbed.paths import RUN_ROOT
from holdfast_testbed.state import Bed


@dataclass(frozen=True)
class Site:
    """Where one region of one testbed is on this machine."""

    bed: str
    addresses: RegionAddresses
    plan: AddressPlan
    folder: Path  # on disk: cluster data, certificates, logs; survives a killed region
    run: Path  # sockets and what a reboot of the region would wipe
    binaries: Path

    @property
    def name(self) -> str:
        """The region's name."""
        return self.addresses.name

    @property
    def namespace(self) -> str:
        """The region's network namespace."""
        return f"{self.bed}-{self.name}"

    @property
    def namespace_path(self) -> Path:
        """File that keeps the network namespace alive."""
        return Path("/var/run/netns") / self.namespace

    @property
    def cgroup(self) -> str:
        """Parent cgroup of all containers of the region, in every hierarchy."""
        return f"/holdfast/{self.bed}/{self.name}"

    @property
    def node(self) -> str:
        """Name of the region's one node."""
        return f"{self.name}-0"

    @property
    def zone(self) -> str:
        """The node's zone."""
        return f"{self.name}-a"

    @property
    def pki(self) -> Path:
        """Folder of certificates and keys."""
        return self.folder / "pki"

    @property
    def config(self) -> Path:
        """Folder of the components' configuration files."""
        return self.folder / "config"

    @property
    def logs(self) -> Path:
        """Folder with one log per component."""
        return self.folder / "logs"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        """Socket of the region's containerd."""
        return self.run / "containerd.sock"


def bare_site(bed: Bed, region: str, binaries: Path) -> Site:
    """The site of one region of a testbed."""
    plan = bed.addresses
    return Site(
        bed=bed.name,
        addresses=plan.region(region),
        plan=plan,
        folder=bed.region_folder(region),
        run=RUN_ROOT / bed.name / region,
        binaries=binaries,
    )
