"""Models on Hugging Face's hub, or what answers like it at `HF_ENDPOINT`, through huggingface_hub.

`hf://org/name[@revision][/path]`, as the library itself writes it; a path may name a file or a directory. The revision
is resolved to a commit once, so that all files are of one. The library finds the endpoint, the token (`HF_TOKEN`) and
the certificates, and speaks HTTP; its own `hf_hub_download` is not used, because a process that is killed in it begins
anew (since 1.0 its temporary files are of one process) and leaves what it had behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from holdfast_engine.fetch import Body, Listing, RemoteFile, download, relative
from holdfast_engine.model_errors import Interrupted, ModelUnavailable, plain

BLOCK = 1 << 20
TIMEOUT_SECONDS = 30.0
"""Without a byte."""
_TRANSIENT = (408, 429, 500, 502, 503, 504)


def open_origin(rest: str) -> HubOrigin:
    parts = rest.split("/", 2)
    if len(parts) < 2 or not all(parts[:2]):
        raise ModelUnavailable(f"hf://{rest} names no repository: write hf://organisation/name")
    name, _, revision = parts[1].partition("@")
    return HubOrigin(f"{parts[0]}/{name}", revision or None, parts[2].strip("/") if len(parts) > 2 else "")


class HubOrigin:
    def __init__(self, repository: str, revision: str | None, path: str) -> None:
        self._repository, self._revision, self._path = repository, revision, path
        self._commit = ""

    def listing(self) -> Listing:
        try:
            info = huggingface_hub.HfApi().model_info(
                self._repository, revision=self._revision, files_metadata=True, timeout=TIMEOUT_SECONDS
            )
        except Exception as error:  # the library lets its HTTP client's errors through, which are of several kinds
            raise self._unavailable(error) from error
        self._commit = str(info.sha)
        files = []
        for each in info.siblings or ():
            if self._path and each.rfilename != self._path and not each.rfilename.startswith(f"{self._path}/"):
                continue
            path = relative(each.rfilename)
            if path is not None:
                sha256 = each.lfs.sha256 if each.lfs else None
                files.append(RemoteFile(path, int(each.size or 0), each.rfilename, sha256))
        return Listing(f"{self._commit} {self._path}", tuple(files), model=self._path)

    def fetch(self, file: RemoteFile, target: Path, got: Callable[[int], None]) -> None:
        download(file, target, lambda offset: self._read(file, offset), got)

    def _read(self, file: RemoteFile, offset: int) -> Body:
        url = huggingface_hub.hf_hub_url(self._repository, file.key, revision=self._commit)
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        opened = ExitStack()
        try:
            answer = opened.enter_context(
                get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT_SECONDS)
            )
            if answer.status_code not in _TRANSIENT:
                hf_raise_for_status(answer)
        except HfHubHTTPError as error:
            opened.close()
            raise self._unavailable(error) from error
        except Exception as error:  # of the HTTP client, which has changed with the library's versions
            opened.close()
            raise Interrupted(plain(error)) from error
        if answer.status_code in _TRANSIENT:
            opened.close()
            raise Interrupted(f"the hub answers {answer.status_code}")
        return Body(offset if answer.status_code == 206 else 0, _blocks(answer, opened))

    def _unavailable(self, error: Exception) -> ModelUnavailable:
        at = f"@{self._revision}" if self._revision else ""
        return ModelUnavailable(f"hf://{self._repository}{at} cannot be fetched: {plain(error)}")


def _blocks(answer: Any, opened: ExitStack) -> Iterator[bytes]:
    with opened:
        try:
            yield from answer.iter_raw(BLOCK)
        except Exception as error:  # of the HTTP client, which has changed with the library's versions
            raise Interrupted(plain(error)) from error
