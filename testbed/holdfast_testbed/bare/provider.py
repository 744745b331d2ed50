"""The provider that needs no container engine: real Kubernetes components in network namespaces, on Debian 12.

A region is a namespace with a complete control plane and one node, joined to the others by a bridge. Regions are
started at the same time; each waits mostly for its own components.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from holdfast_testbed import fault_record
from holdfast_testbed.errors import TestbedError
from holdfast_testbed.images.pause import ensure_pause_archive
from holdfast_testbed.paths import RUN_ROOT
from holdfast_testbed.progress import Progress
from holdfast_testbed.provider import Fault, RegionStatus
from holdfast_testbed.state import Bed

from . import debian, faults, images, kubernetes, network, processes, regions
from .components import expected
from .host import require_root, require_space
from .kubeapi import KubeApi
from .node import node_ready
from .site import Site, bare_site

REGION_GIB = 1.5


class BareProvider:
    """Runs regions as network namespaces on this machine."""

    def up(self, bed: Bed, progress: Progress) -> None:
        """Bring every region to running."""
        require_root()
        binaries = kubernetes.ensure_binaries(progress)
        debian.ensure_packages(debian.CONTROL_PLANE, progress)
        pause: Path | None = None
        if not bed.control_plane_only:
            debian.ensure_packages(debian.NODE, progress)
            require_space(bed.folder, REGION_GIB * len(bed.regions), "The testbed")
            pause = ensure_pause_archive()
        network.ensure_backbone(bed.addresses)

        def start(name: str) -> None:
            regions.heal(bare_site(bed, name, binaries), bed.control_plane_only, pause, progress)

        _each(bed.regions, start)

    def down(self, bed: Bed, progress: Progress) -> None:
        """Remove all regions and the network between them."""
        require_root()
        sites = _sites(bed)
        with progress.step(f"removing {', '.join(bed.regions)}"):
            _each(bed.regions, lambda name: regions.stop(sites[name]))
            network.remove_backbone(bed.addresses)
            last = next(iter(sites.values()))
            _remove_run_folders(last.run.parent)
            if not RUN_ROOT.exists():
                regions.remove_mount_points(last)
                network.unmount_namespaces()

    def status(self, bed: Bed) -> tuple[RegionStatus, ...]:
        """Look at every region."""
        sites = _sites(bed)
        with ThreadPoolExecutor(len(sites)) as pool:
            return tuple(pool.map(lambda site: _status(site, bed.control_plane_only), sites.values()))

    def load_images(self, bed: Bed, names: Sequence[str], archives: Sequence[Path], progress: Progress) -> None:
        """Import the archives into the regions' containerds."""
        if bed.control_plane_only:
            raise TestbedError(f"The testbed {bed.name} has no nodes; run `up` without --control-plane-only first.")
        sites = _sites(bed)

        def load(name: str) -> None:
            for archive in archives:
                with progress.step(f"{name}: loading {archive.name}") as update:
                    if not images.ensure_image(sites[name], archive):
                        update("there already")

        _each(names, load, at_once=2)

    def fault(self, bed: Bed, region: str, fault: Fault | None, progress: Progress) -> None:
        """Inject a fault, or heal."""
        require_root()
        site = _sites(bed)[region]
        if fault is not None:
            network_gone = not network.link_exists(site.addresses.link)
            if network_gone:
                raise TestbedError(f"Region {region} is not running; start it with `holdfast-testbed up`.")
            faults.inject(site, fault)
            return
        pause = None if bed.control_plane_only else ensure_pause_archive()
        regions.heal(site, bed.control_plane_only, pause, progress)


def slot_is_taken(slot: int) -> bool:
    """Whether a testbed, also another user's, has the slot's bridge."""
    return network.link_exists(f"hf{slot}")


def _sites(bed: Bed) -> dict[str, Site]:
    binaries = kubernetes.binaries_folder()
    return {name: bare_site(bed, name, binaries) for name in bed.regions}


def _status(site: Site, control_plane_only: bool) -> RegionStatus:
    components = {str(part): processes.recorded(site, part) is not None for part in expected(control_plane_only)}
    api_ready, ready = False, None
    if site.kubeconfig.exists() and any(components.values()):
        api = KubeApi(site.kubeconfig)
        api_ready = api.ready(timeout=1.0)
        ready = node_ready(api, site.node) if api_ready and not control_plane_only else None
    return RegionStatus(
        name=site.name,
        address=str(site.addresses.address),
        kubeconfig=site.kubeconfig,
        faults=fault_record.present(site.folder),
        components=components,
        api_ready=api_ready,
        node_ready=ready,
    )


def _each(names: Sequence[str], act: Callable[[str], None], at_once: int = 8) -> None:
    """Do it for all regions at the same time; all are tried, then the first failure is raised."""
    with ThreadPoolExecutor(min(at_once, max(len(names), 1))) as pool:
        futures = [pool.submit(act, name) for name in names]
    for future in futures:
        future.result()


def _remove_run_folders(folder: Path) -> None:
    """Remove a testbed's folder for sockets, and those above that no other testbed uses."""
    for path in (folder, folder.parent, folder.parent.parent):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
