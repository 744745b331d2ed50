"""Models on Hugging Face's hub, or what answers like it at `HF_ENDPOINT`, through huggingface_hub.

`hf://org/name[@revision][/path]`, as the library itself writes it; a path may name a file or a directory. The revision
is resolved to a commit once, so that all files are of one. The library transfers, resumes and retries; it finds the
token (`HF_TOKEN`) and keeps unfinished files under `.cache` beside the model, which digests leave out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import huggingface_hub

from holdfast_engine.fetch import Listing, RemoteFile, relative
from holdfast_engine.model_errors import ModelUnavailable, is_refusal, plain

TIMEOUT_SECONDS = 30.0


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
        folder = target
        for _ in Path(file.path).parts:
            folder = folder.parent
        try:
            huggingface_hub.hf_hub_download(self._repository, file.key, revision=self._commit, local_dir=folder)
        except Exception as error:
            if isinstance(error, OSError) and is_refusal(error):
                raise
            raise self._unavailable(error) from error
        got(file.size)

    def _unavailable(self, error: Exception) -> ModelUnavailable:
        at = f"@{self._revision}" if self._revision else ""
        return ModelUnavailable(f"hf://{self._repository}{at} cannot be fetched: {plain(error)}")
