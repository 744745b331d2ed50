"""Installs the Debian packages that the testbed uses, when something of them is missing.

A package counts as present when the file that is needed of it exists, whoever put it there. Services that packages
bring along (etcd, containerd) must not start: Debian's own switch for that, `policy-rc.d`, is set meanwhile.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from holdfast_testbed.commands import run_logged
from holdfast_testbed.errors import BuildError, CommandError
from holdfast_testbed.paths import cache_root
from holdfast_testbed.progress import Progress

from .host import require_bookworm, require_root

CONTROL_PLANE = {
    "etcd": "etcd-server",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "sysctl": "procps",
}
NODE = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "socat": "socat",
    "ethtool": "ethtool",
    "modprobe": "kmod",
    "mkfs.ext4": "e2fsprogs",
    "gcc": "gcc",
    "/usr/include/stdlib.h": "libc6-dev",
}
KUBERNETES_BUILD = {
    "go": "golang-go",
    "gcc": "gcc",
    "jq": "jq",
    "make": "make",
    "rsync": "rsync",
    "dpkg-source": "dpkg-dev",
    "/usr/share/gocode/src/github.com/modern-go/reflect2/reflect2.go": "golang-github-modern-go-reflect2-dev",
}
IMAGE_BUILD = {"debootstrap": "debootstrap", "gcc": "gcc", "/usr/include/stdlib.h": "libc6-dev"}

POLICY = Path("/usr/sbin/policy-rc.d")
INSTALL_SECONDS = 1800.0


def missing_packages(needed: Mapping[str, str]) -> list[str]:
    """Packages of which the needed command or file is absent."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = (
        package
        for want, package in needed.items()
        if not (Path(want).exists() if want.startswith("/") else shutil.which(want, path=path))
    )
    return list(dict.fromkeys(absent))


def ensure_packages(needed: Mapping[str, str], progress: Progress) -> None:
    """Install what is missing."""
    packages = missing_packages(needed)
    if not packages:
        return
    require_root()
    require_bookworm(f"Installing {', '.join(packages)}")
    log = cache_root() / "apt.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    install = ["apt-get", "install", "-qy", "--no-install-recommends", *packages]
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    with progress.step(f"installing Debian packages: {' '.join(packages)}") as update, _services_stay_off():
        try:
            run_logged(install, log, timeout=INSTALL_SECONDS, env=env)
        except CommandError:
            update("updating the package lists")
            try:
                run_logged(["apt-get", "update", "-q"], log, timeout=INSTALL_SECONDS, env=env)
                run_logged(install, log, timeout=INSTALL_SECONDS, env=env)
            except CommandError as error:
                raise BuildError(f"Debian packages could not be installed. {error}") from error


@contextmanager
def _services_stay_off() -> Iterator[None]:
    """Forbid packages to start services while they are installed, unless the machine forbids it already."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
