"""Starts, heals and removes one bare region.

Everything is written as "make sure that": what runs is left alone, what is missing is started, so the same code serves
the first start, a repeated `up`, and healing after a kill. Data (etcd, images) stay on disk; sockets and container
state are wiped when all processes of a region are gone, as a reboot of a machine would.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from holdfast_testbed import fault_record
from holdfast_testbed.commands import succeeds
from holdfast_testbed.errors import ComponentError
from holdfast_testbed.progress import Progress, Update
from holdfast_testbed.provider import FaultKind
from holdfast_testbed.state import write_atomically

from . import distance, images, network, node, precedence, processes
from .certificates import ensure_credentials
from .components import ALL, ON_THE_NODE, Component, command, enter_network, enter_node, expected
from .configs import bind_mounts, kubeconfig, region_files
from .kubeapi import KubeApi, wait_until
from .site import Site

START_SECONDS = 120.0
YOUNG_SECONDS = 60.0
API = (Component.ETCD, Component.API_SERVER)
CLIENTS = (Component.CONTROLLERS, Component.SCHEDULER, Component.KUBELET, Component.PROXY)
"""What needs the API server from its start."""
NODE_COMPONENTS = ON_THE_NODE | {Component.HOLDER}


def start(site: Site, control_plane_only: bool, pause_archive: Path | None, progress: Progress) -> None:
    """Bring a region to running and ready."""
    wanted = expected(control_plane_only)
    if not _intact(site, wanted):
        _clear_remains(site)
    api = _prepare(site)
    missing = [part for part in wanted if processes.recorded(site, part) is None]
    what = f"{site.name}: {'starting' if missing else 'checking'}"
    with progress.step(what) as update:
        for part in missing:
            if part in CLIENTS:
                # The controllers give up when the API server is not there within ten seconds of their start.
                _await_api(site, api, update)
            _start_component(site, part)
        _await_control_plane(site, api, wanted, update)
        if not control_plane_only:
            _await_node(site, api, wanted, pause_archive, update)


def heal(site: Site, control_plane_only: bool, pause_archive: Path | None, progress: Progress) -> None:
    """Undo all faults of a region and wait until it is well."""
    suffered = {fault.kind for fault in fault_record.present(site.folder)}
    if FaultKind.FREEZE in suffered:
        processes.signal_region(site, signal.SIGCONT)
    if FaultKind.DELAY in suffered and network.link_exists(site.addresses.link):
        distance.remove(site)
    start(site, control_plane_only, pause_archive, progress)
    fault_record.clear(site.folder)


def stop(site: Site) -> None:
    """End all processes of a region and remove what it has outside of its folders."""
    if not processes.kill_region(site):
        raise ComponentError("a process", site.name, site.logs, "did not end when it was killed")
    _unmount_below(site.folder, site.run)
    network.remove_region(site)
    _remove_cgroups(site)
    shutil.rmtree(site.run, ignore_errors=True)


def remove_mount_points(site: Site) -> None:
    """Remove the empty folders that regions' mounts were put on; only once no region of any testbed runs.

    Removing a folder that is a mount point in another namespace would take the mount away there. One that somebody
    uses at this moment stays: another testbed may just be starting.
    """
    for path in map(Path, bind_mounts(site)):
        if path.is_dir() and not path.is_mount() and not any(path.iterdir()):
            with contextlib.suppress(OSError):
                path.rmdir()


def _intact(site: Site, wanted: tuple[Component, ...]) -> bool:
    """Whether single components can be started again beside those that run."""
    if not network.is_made(site):
        return False
    running = {part for part in ALL if processes.recorded(site, part) is not None}
    # The mounts are the holder's: without it the node's components that still run are lost to new ones.
    orphaned = running & NODE_COMPONENTS and Component.HOLDER not in running
    nothing_runs = not running & set(wanted)
    return not orphaned and not nothing_runs


def _clear_remains(site: Site) -> None:
    """Remove what an interrupted, killed or earlier boot's region has left, except its data."""
    stop(site)
    shutil.rmtree(site.folder / "processes", ignore_errors=True)


def _prepare(site: Site) -> KubeApi:
    for folder in (site.run, site.logs, site.config):
        folder.mkdir(parents=True, exist_ok=True)
    tokens, authority = ensure_credentials(site)
    for name, text in region_files(site, tokens, authority).items():
        write_atomically(site.config / name, text)
    write_atomically(site.kubeconfig, kubeconfig(site, "admin", tokens["admin"], authority))
    network.ensure_region(site)
    return KubeApi(site.kubeconfig)


def _start_component(site: Site, part: Component) -> None:
    if part is Component.HOLDER:
        (site.run / "mounted").unlink(missing_ok=True)
    if part in ON_THE_NODE:
        holder = processes.recorded(site, Component.HOLDER)
        if holder is None or not wait_until((site.run / "mounted").exists, timeout=10.0, pause=0.01):
            raise _failure(site, Component.HOLDER, "did not mount the region's folders")
        prefix = enter_node(holder.pid)
    else:
        prefix = enter_network(site)
    processes.record(site, part, processes.spawn([*prefix, *command(part, site)], _log(site, part)))


def _await_api(site: Site, api: KubeApi, update: Update) -> None:
    update("waiting for the API server")
    _await(site, Component.API_SERVER, api.ready, API, "was not ready in time")


def _await_control_plane(site: Site, api: KubeApi, wanted: tuple[Component, ...], update: Update) -> None:
    _await_api(site, api, update)
    update("waiting for the controllers")
    account = "/api/v1/namespaces/default/serviceaccounts/default"

    def has_default_account() -> bool:
        try:
            return bool(api.get(account).get("secrets"))
        except OSError:
            return False

    _await(site, Component.CONTROLLERS, has_default_account, wanted, "did not make the default service account")


def _await_node(
    site: Site, api: KubeApi, wanted: tuple[Component, ...], pause_archive: Path | None, update: Update
) -> None:
    update("waiting for containerd")
    _await(site, Component.CONTAINERD, lambda: images.answers(site), wanted, "did not answer in time")
    precedence.of_containers()
    if pause_archive is not None:
        images.ensure_image(site, pause_archive)
    update("waiting for the node")

    # What the node said before its kubelet was started again does not count.
    since = processes.started_at(site, Component.KUBELET)

    def node_well() -> bool:
        return node.ensure_gpus(api, site.node) and node.node_ready(api, site.node, since)

    _await(site, Component.KUBELET, node_well, wanted, "did not make its node ready in time")


def _await(site: Site, part: Component, condition: Callable[[], bool], wanted: tuple[Component, ...], why: str) -> None:
    """Wait for a condition; a component that ends meanwhile is reported at once, with its log."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        for other in wanted:
            if processes.recorded(site, other) is None:
                raise _failure(site, other, "ended while it was starting")
        if time.monotonic() > deadline:
            raise _failure(site, part, why)
        time.sleep(0.2)


def _failure(site: Site, part: Component, why: str) -> ComponentError:
    return ComponentError(part, site.name, _log(site, part), why)


def _log(site: Site, part: Component) -> Path:
    return site.logs / f"{part}.log"


def _unmount_below(*folders: Path) -> None:
    """Unmount all that is mounted below these folders, the innermost first."""
    targets = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    prefixes = tuple(f"{folder}/" for folder in folders)
    for target in sorted((t for t in targets if t.startswith(prefixes)), key=len, reverse=True):
        succeeds(["umount", "--lazy", target])


def _remove_cgroups(site: Site) -> None:
    """Remove the region's cgroups from every hierarchy, the innermost first, and what ended containers have left."""
    roots = [Path("/sys/fs/cgroup"), *(path for path in Path("/sys/fs/cgroup").glob("*") if path.is_dir())]
    for root in roots:
        _remove_ended_containers(root / precedence.CONTAINERS)
        top = root / site.cgroup.lstrip("/")
        if not top.is_dir():
            continue
        for folder, _, _ in os.walk(top, topdown=False):
            _rmdir(Path(folder))
        for parent in (top.parent, top.parent.parent):
            _rmdir(parent)


def _remove_ended_containers(top: Path) -> None:
    """containerd leaves their cgroups. A young one may be of a container that another region is about to start."""
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            if time.time() - Path(folder).stat().st_mtime > YOUNG_SECONDS:
                _rmdir(Path(folder))


def _rmdir(folder: Path) -> None:
    """Remove a folder unless others still use it."""
    try:
        folder.rmdir()
    except OSError:
        return
