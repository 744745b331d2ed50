"""Models as artifacts in a registry (OCI), through oras: `oras push REGISTRY/REPOSITORY:TAG model.gguf` puts one there.

Every layer is one file, named by the annotation `org.opencontainers.image.title`; a single layer is a model that is a
file. Each is checked against its layer's digest, and the manifest against the one in the URL if that names a digest.
Credentials are Docker's (`DOCKER_CONFIG`). A registry on this machine is spoken to without TLS, as Docker does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import oras.auth.utils
import oras.container
import oras.provider
import requests

from holdfast_engine.fetch import Body, Listing, RemoteFile, download, relative
from holdfast_engine.model_errors import Interrupted, ModelUnavailable, plain

BLOCK = 1 << 20
TITLE = "org.opencontainers.image.title"
ACCEPTED = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_DIRECTORY = "io.deis.oras.content.unpack"
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


def open_origin(rest: str) -> OciOrigin:
    return OciOrigin(rest)


class OciOrigin:
    def __init__(self, reference: str) -> None:
        host, _, path = reference.partition("/")
        if not path:
            raise ModelUnavailable(f"oci://{reference} names no repository: write oci://registry/repository:tag")
        insecure = host in _LOCAL or host.rpartition(":")[0] in _LOCAL
        self._reference = reference
        self._registry: Any = oras.provider.Registry(host, insecure=insecure)
        self._container: Any = oras.container.Container(reference, registry=host)
        folder = os.environ.get("DOCKER_CONFIG")
        own = [str(Path(folder) / "config.json")] if folder else None
        self._registry.auth.load_configs(self._container, configs=own)

    def listing(self) -> Listing:
        manifest = self._manifest()
        layers = manifest.get("layers")
        if not isinstance(layers, list):
            raise ModelUnavailable(f"oci://{self._reference} is an index of images: name one artifact by its digest")
        files = []
        for layer in layers:
            annotations = layer.get("annotations") or {}
            title = annotations.get(TITLE)
            if not title or annotations.get(_DIRECTORY):
                raise ModelUnavailable(
                    f"oci://{self._reference} has a layer that is not a file: push files, not a directory"
                )
            if (path := relative(title)) is not None:
                sha256 = str(layer["digest"]).removeprefix("sha256:")
                files.append(RemoteFile(path, int(layer["size"]), str(layer["digest"]), sha256))
        named = json.dumps(sorted((file.path, file.key) for file in files))
        return Listing(
            hashlib.sha256(named.encode()).hexdigest(), tuple(files), model=files[0].path if len(files) == 1 else ""
        )

    def fetch(self, file: RemoteFile, target: Path, got: Callable[[int], None]) -> None:
        download(file, target, lambda offset: self._read(file, offset), got)

    def _manifest(self) -> dict[str, Any]:
        url = f"{self._registry.prefix}://{self._container.manifest_url()}"
        try:
            answer = self._registry.do_request(url, "GET", headers={"Accept": ", ".join(ACCEPTED)})
        except Exception as error:  # oras has no error class of its own
            raise ModelUnavailable(f"oci://{self._reference} cannot be reached: {plain(error)}") from error
        if answer.status_code != 200:
            raise ModelUnavailable(
                f"oci://{self._reference}: the registry answers {answer.status_code} {answer.reason}"
            )
        _, _, wanted = self._reference.partition("@sha256:")
        if wanted and hashlib.sha256(answer.content).hexdigest() != wanted:
            raise ModelUnavailable(f"oci://{self._reference}: the registry gives another manifest than the digest says")
        return dict(answer.json())

    def _read(self, file: RemoteFile, offset: int) -> Body:
        url = f"{self._registry.prefix}://{self._container.get_blob_url(file.key)}"
        headers = {**self._registry.headers, **({"Range": f"bytes={offset}-"} if offset else {})}
        try:
            answer = self._registry.do_request(url, "GET", headers=headers, stream=True)
        except requests.RequestException as error:
            raise Interrupted(plain(error)) from error
        except Exception as error:  # oras has no error class of its own
            raise ModelUnavailable(f"{file.key} of oci://{self._reference}: {plain(error)}") from error
        if answer.status_code >= 500 or answer.status_code == 429:
            raise Interrupted(f"the registry answers {answer.status_code}")
        if answer.status_code not in (200, 206):
            raise ModelUnavailable(f"{file.key} of oci://{self._reference}: the registry answers {answer.status_code}")
        return Body(offset if answer.status_code == 206 else 0, _blocks(answer))


def _blocks(answer: requests.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_content(BLOCK)
    except (requests.RequestException, OSError) as error:
        raise Interrupted(plain(error)) from error
    finally:
        answer.close()
