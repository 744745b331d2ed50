"""Imports docker archives into a region's containerd; images and layers that are there are not sent again."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from holdfast_testbed.commands import run, succeeds
from holdfast_testbed.errors import CommandError, TestbedError
from holdfast_testbed.state import write_atomically

from . import transfer
from .site import Site

IMPORT_SECONDS = 600.0


def answers(site: Site) -> bool:
    """Whether the region's containerd answers."""
    return site.containerd_socket.exists() and succeeds([*_ctr(site), "version"], timeout=5.0)


def ensure_image(site: Site, archive: Path) -> bool:
    """Import the archive unless the region has exactly these images; whether it was imported."""
    wanted = archive_images(archive)
    loaded = _loaded(site)
    if all(loaded.get(name) == digest for name, digest in wanted.items()):
        present = set(run([*_ctr(site), "images", "ls", "-q"]).split())
        if wanted.keys() <= present:
            return False
    try:
        _import(site, archive, present=run([*_ctr(site), "content", "ls", "-q"]).split())
    except CommandError:
        # A layer counted on may have been collected meanwhile, or layers are compressed: send all of it, as it is.
        run([*_ctr(site), "images", "import", str(archive)], timeout=IMPORT_SECONDS)
    write_atomically(site.folder / "images.json", json.dumps(loaded | wanted, indent=2))
    return True


def archive_images(archive: Path) -> dict[str, str]:
    """Names in a docker archive, as containerd keeps them, each with its image's id."""
    try:
        with tarfile.open(archive) as tar:
            images = transfer.read_images(tar)
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise TestbedError(f"{archive} is not a docker archive (`docker save`): {error}") from error
    return {name: image.digest for image in images for name in image.names}


def _import(site: Site, archive: Path, present: Iterable[str]) -> None:
    argv = [*_ctr(site), "images", "import", "-"]
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=output, stderr=output) as receiver:
            assert receiver.stdin is not None
            try:
                transfer.send(archive, present, receiver.stdin)
                receiver.stdin.close()
            except BrokenPipeError:
                pass  # the receiver has ended; what it said is below
        if receiver.returncode != 0:
            output.seek(0)
            raise CommandError(argv, output.read().decode(errors="replace"))


def _loaded(site: Site) -> dict[str, str]:
    try:
        loaded: dict[str, str] = json.loads((site.folder / "images.json").read_text())
    except FileNotFoundError:
        return {}
    return loaded


def _ctr(site: Site) -> list[str]:
    return ["ctr", "--address", str(site.containerd_socket), "--namespace", "k8s.io"]
