"""Sends a docker archive to containerd without the layers that it has already.

A docker archive can only be imported whole; an OCI archive may leave out blobs that are in the content store. So the
one is rewritten as the other on the way: new code of an image then costs its own small layer, not the hundreds of
megabytes below. A layer's blob has the digest that the config calls its diff id, as layers are stored uncompressed.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
IMAGE_NAME = "io.containerd.image.name"


@dataclass(frozen=True)
class ArchivedImage:
    """One image of a docker archive."""

    names: tuple[str, ...]
    config: bytes
    layers: tuple[str, ...]  # names of the archive's members, lowest first

    @property
    def digest(self) -> str:
        """The image's id: its config names every layer and setting."""
        return _digest(self.config)

    @property
    def layer_digests(self) -> tuple[str, ...]:
        """sha256:… of each layer, in the same order."""
        return tuple(json.loads(self.config)["rootfs"]["diff_ids"])


def read_images(archive: tarfile.TarFile) -> list[ArchivedImage]:
    """The images of a docker archive; KeyError if it is none."""
    entries = json.loads(_content(archive, "manifest.json"))
    return [
        ArchivedImage(
            names=tuple(map(full_name, entry.get("RepoTags") or ())),
            config=_content(archive, entry["Config"]),
            layers=tuple(entry["Layers"]),
        )
        for entry in entries
    ]


def full_name(tag: str) -> str:
    """A tag with its registry, as container runtimes complete it."""
    first, _, rest = tag.partition("/")
    if not rest:
        return f"docker.io/library/{tag}"
    return tag if "." in first or ":" in first or first == "localhost" else f"docker.io/{tag}"


def image_manifest(image: ArchivedImage, sizes: dict[str, int]) -> bytes:
    """The OCI manifest of an image; `sizes` are those of the archive's members, in bytes."""
    pairs = zip(image.layers, image.layer_digests, strict=True)
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _descriptor(CONFIG, image.config),
        "layers": [{"mediaType": LAYER, "digest": digest, "size": sizes[name]} for name, digest in pairs],
    }
    return json.dumps(document).encode()


def send(source: Path, present: Iterable[str], sink: IO[bytes]) -> None:
    """Write the archive's images as an OCI archive, leaving out layers whose digest is `present`."""
    sent = set(present)
    with tarfile.open(source) as archive, tarfile.open(fileobj=sink, mode="w|") as out:
        sizes = {member.name: member.size for member in archive}
        index = []
        for image in read_images(archive):
            manifest = image_manifest(image, sizes)
            for blob in (image.config, manifest):
                _add(out, _blob_name(_digest(blob)), len(blob), io.BytesIO(blob))
            for name, digest in zip(image.layers, image.layer_digests, strict=True):
                layer = archive.extractfile(name)
                if digest not in sent and layer is not None:
                    _add(out, _blob_name(digest), sizes[name], layer)
                    sent.add(digest)
            index += [_descriptor(MANIFEST, manifest) | {"annotations": {IMAGE_NAME: name}} for name in image.names]
        for name, document in (
            ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
            ("index.json", {"schemaVersion": 2, "manifests": index}),
        ):
            text = json.dumps(document).encode()
            _add(out, name, len(text), io.BytesIO(text))


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    if member is None:
        raise KeyError(name)
    return member.read()


def _add(out: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    out.addfile(member, content)
