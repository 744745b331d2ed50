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

import oras.auth
import oras.container
import oras.provider
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from holdfast_engine.fetch import Body, Listing, RemoteFile, download, relative
from holdfast_engine.model_errors import Interrupted, ModelUnavailable, plain

BLOCK = 1 << 20
TIMEOUTS = (10, 60)
"""Seconds to connect, and without a byte."""
RETRIES = Retry(total=4, backoff_factor=1, status_forcelist=(429, 502, 503, 504), raise_on_status=False)
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
        self._registry.session.mount(f"{self._registry.prefix}://", HTTPAdapter(max_retries=RETRIES))
        self._credentials: dict[str, str] = {}

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
            answer = self._get(url, {"Accept": ", ".join(ACCEPTED)})
            content = answer.content
        except requests.RequestException as error:
            raise ModelUnavailable(f"oci://{self._reference} cannot be reached: {plain(error)}") from error
        if answer.status_code != 200:
            raise ModelUnavailable(
                f"oci://{self._reference}: the registry answers {answer.status_code} {answer.reason}"
            )
        _, _, wanted = self._reference.partition("@sha256:")
        if wanted and hashlib.sha256(content).hexdigest() != wanted:
            raise ModelUnavailable(f"oci://{self._reference}: the registry gives another manifest than the digest says")
        try:
            return dict(json.loads(content))
        except (ValueError, TypeError) as error:
            raise ModelUnavailable(f"oci://{self._reference}: the registry's answer is no manifest") from error

    def _read(self, file: RemoteFile, offset: int) -> Body:
        url = f"{self._registry.prefix}://{self._container.get_blob_url(file.key)}"
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})}
        try:
            answer = self._get(url, headers)
        except requests.RequestException as error:
            raise Interrupted(plain(error)) from error
        if answer.status_code >= 500 or answer.status_code == 429:
            raise Interrupted(f"the registry answers {answer.status_code}")
        if answer.status_code not in (200, 206):
            raise ModelUnavailable(f"{file.key} of oci://{self._reference}: the registry answers {answer.status_code}")
        return Body(offset if answer.status_code == 206 else 0, _blocks(answer))

    def _get(self, url: str, headers: dict[str, str]) -> requests.Response:
        """Ask, with credentials once the registry wants some; the library's own request has no time-outs."""

        def ask(credentials: dict[str, str]) -> requests.Response:
            session: requests.Session = self._registry.session
            return session.get(url, headers={**headers, **credentials}, stream=True, timeout=TIMEOUTS)

        answer = ask(self._credentials)
        challenge = answer.headers.get("Www-Authenticate", "")
        if answer.status_code not in (401, 403) or not challenge:
            return answer
        kind = "basic" if challenge.lower().startswith("basic") else "token"
        auth: Any = oras.auth.get_auth_backend(kind, self._registry.session, self._registry.prefix == "http")
        auth.load_configs(self._container, configs=_docker_configs())
        if kind == "basic" and not getattr(auth, "_basic_auth", None):
            return answer  # nothing to answer the challenge with; the library fails at it
        found, changed = auth.authenticate_request(answer, {})
        if not changed:
            return answer
        answer.close()
        self._credentials = {"Authorization": found["Authorization"]}
        return ask(self._credentials)


def _docker_configs() -> list[str]:
    """Beside the one in the home directory, which the library reads itself."""
    config = Path(os.environ.get("DOCKER_CONFIG", "/nonexistent")) / "config.json"
    return [str(config)] if config.is_file() else []


def _blocks(answer: requests.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_content(BLOCK)
    except (requests.RequestException, OSError) as error:
        raise Interrupted(plain(error)) from error
    finally:
        answer.close()
