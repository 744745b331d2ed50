"""Imports docker archives into a region's containerd."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from holdfast_testbed.commands import run, succeeds
from holdfast_testbed.errors import TestbedError
from holdfast_testbed.state import write_atomically

from .site import Site


def answers(site: Site) -> bool:
    """Whether the region's containerd answers."""
    return site.containerd_socket.exists() and succeeds([*_ctr(site), "version"], timeout=5.0)


def ensure_image(site: Site, archive: Path) -> bool:
    """Import the archive unless the region has exactly these images; whether it was imported."""
    wanted = archive_images(archive)
    loaded = _loaded(site)
    if all(loaded.get(name) == config for name, config in wanted.items()):
        present = set(run([*_ctr(site), "images", "ls", "-q"]).split())
        if wanted.keys() <= present:
            return False
    run([*_ctr(site), "images", "import", str(archive)], timeout=600.0)
    write_atomically(site.folder / "images.json", json.dumps(loaded | wanted, indent=2))
    return True


def archive_images(archive: Path) -> dict[str, str]:
    """Names in a docker archive, as containerd keeps them, each with the name (digest) of its config."""
    try:
        with tarfile.open(archive) as tar:
            member = tar.extractfile("manifest.json")
            manifest = json.loads(member.read()) if member else []
    except (OSError, KeyError, tarfile.TarError) as error:
        raise TestbedError(f"{archive} is not a docker archive (`docker save`): {error}") from error
    return {full_name(tag): entry["Config"] for entry in manifest for tag in entry.get("RepoTags") or []}


def full_name(tag: str) -> str:
    """A tag with its registry, as container runtimes complete it."""
    first, _, rest = tag.partition("/")
    if not rest:
        return f"docker.io/library/{tag}"
    return tag if "." in first or ":" in first or first == "localhost" else f"docker.io/{tag}"


def _loaded(site: Site) -> dict[str, str]:
    try:
        loaded: dict[str, str] = json.loads((site.folder / "images.json").read_text())
    except FileNotFoundError:
        return {}
    return loaded


def _ctr(site: Site) -> list[str]:
    return ["ctr", "--address", str(site.containerd_socket), "--namespace", "k8s.io"]
