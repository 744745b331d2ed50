"""The images' common base layer: Debian 12 with Python and certificates, made by debootstrap and slimmed."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from holdfast_testbed.bare.apt_sources import SUITE, mirror, system_sources
from holdfast_testbed.commands import run_logged
from holdfast_testbed.progress import Progress

from .archive import write_layer

PACKAGES = ("python3", "ca-certificates")
USER = "holdfast:x:65532:65532:holdfast:/tmp:/usr/sbin/nologin\n"
# What no process of an image reads.
SLIMMED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/i18n",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/cache/debconf",
    "var/log",
    "boot",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/python3.11/test",
    "usr/lib/python3.11/lib2to3",
    "usr/lib/python3.11/pydoc_data",
)
EMPTY_FOLDERS = ("tmp", "var/log", "var/cache/apt/archives/partial", "var/lib/apt/lists/partial", "models")
DEBOOTSTRAP_SECONDS = 1800.0


def base_key() -> str:
    """What the base layer depends on, as a hash."""
    return hashlib.sha256(repr((SUITE, PACKAGES, USER, SLIMMED, EMPTY_FOLDERS, 1)).encode()).hexdigest()[:16]


def ensure_base_layer(layers: Path, progress: Progress) -> Path:
    """The base layer's tar, built if it is not in the folder of layers."""
    target = layers / f"base-{base_key()}.tar"
    if target.exists():
        return target
    log = layers / "debootstrap.log"
    log.unlink(missing_ok=True)
    with (
        progress.step("building the base layer (debootstrap, about a minute)"),
        tempfile.TemporaryDirectory(dir=layers, prefix="build-") as name,
    ):
        root = Path(name) / "root"
        include = ",".join(PACKAGES)
        command = [
            "debootstrap",
            "--variant=minbase",
            f"--include={include}",
            SUITE,
            str(root),
            mirror(system_sources()),
        ]
        run_logged(command, log, timeout=DEBOOTSTRAP_SECONDS)
        slim(root)
        write_layer(target, root)
    return target


def slim(root: Path) -> None:
    """Drop what only weighs, and add the user that images run as."""
    for part in SLIMMED:
        shutil.rmtree(root / part, ignore_errors=True)
    for device in (root / "dev").iterdir():  # the container runtime brings its own
        shutil.rmtree(device) if device.is_dir() and not device.is_symlink() else device.unlink()
    for part in EMPTY_FOLDERS:
        (root / part).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    with (root / "etc/passwd").open("a") as passwd:
        passwd.write(USER)
    with (root / "etc/group").open("a") as group:
        group.write("holdfast:x:65532:\n")
    for name in ("hostname", "resolv.conf"):  # of the machine that built it
        (root / "etc" / name).unlink(missing_ok=True)
