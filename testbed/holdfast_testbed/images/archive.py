"""Writes docker archives (`docker save` format): layers, a config and a manifest in one tar. Deterministic."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class ImageSettings:
    """What an image says about how it is run."""

    entrypoint: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    user: str = "65532:65532"
    workdir: str = "/"


def image_config(settings: ImageSettings, layer_digests: Sequence[str]) -> dict[str, Any]:
    """The image's config document; `layer_digests` are sha256 of the uncompressed layers, in order."""
    return {
        "architecture": "amd64",
        "os": "linux",
        "created": EPOCH,
        "config": {
            "Entrypoint": list(settings.entrypoint),
            "Env": [f"{key}={value}" for key, value in sorted(settings.env.items())],
            "User": settings.user,
            "WorkingDir": settings.workdir,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in layer_digests]},
        "history": [{"created": EPOCH, "created_by": "holdfast-testbed"} for _ in layer_digests],
    }


def write_archive(target: Path, tags: Sequence[str], settings: ImageSettings, layers: Sequence[Path]) -> None:
    """Write an image of these layers (uncompressed tars), under these names, as a docker archive, atomically."""
    digests = [file_digest(layer) for layer in layers]
    config = json.dumps(image_config(settings, digests), sort_keys=True).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [f"{digest}.tar" for digest in digests]
    manifest = json.dumps([{"Config": config_name, "RepoTags": list(tags), "Layers": names}]).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT) as tar:
        _add_bytes(tar, "manifest.json", manifest)
        _add_bytes(tar, config_name, config)
        for name, layer in dict(zip(names, layers, strict=True)).items():
            member = tarfile.TarInfo(name)
            member.size = layer.stat().st_size
            with layer.open("rb") as content:
                tar.addfile(member, content)
    temporary.replace(target)


def file_digest(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write_layer(target: Path, root: Path, prefix: str = "", uid: int | None = None) -> None:
    """Write a folder as an image layer, atomically: sorted, without times; `prefix` is where it goes in the image.

    Owners and modes are kept, or set to `uid` where given.
    """
    temporary = target.with_name(f".{target.name}.part")
    with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
        for part in _parents(prefix):
            folder = tarfile.TarInfo(part)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for path in sorted(root.rglob("*")):
            name = str(Path(prefix) / path.relative_to(root))
            member = tar.gettarinfo(path, arcname=name)
            member.mtime = 0
            if uid is not None:
                member.uid = member.gid = uid
            member.uname = member.gname = ""
            if member.isreg():
                with path.open("rb") as content:
                    tar.addfile(member, content)
            elif member.isdir() or member.issym() or member.islnk():
                tar.addfile(member)
    temporary.replace(target)


def _parents(prefix: str) -> list[str]:
    parts = [part for part in prefix.split("/") if part]
    return ["/".join(parts[: end + 1]) for end in range(len(parts))]


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
