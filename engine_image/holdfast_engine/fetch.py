"""Brings a model from where it is kept into a directory of this machine, and goes on where an earlier try broke off.

    CACHE/NAME-HASH/                 one source
        VERSION.partial/             being fetched: whole files, and `FILE.partial`
        VERSION/                     whole; with a digest asked for, it had that digest
        VERSION.json                 what is known of it
        lock                         held by the process that fetches

A version is named by what the source says of itself (commit, ETags, layer digests), so that parts of two versions never
mix. A file is renamed when its size, and its digest where the source tells one, are right; the directory when all its
files are there and the digest that was asked for was found. What is whole is not fetched again. A copy whose bytes
have changed since is removed and fetched anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from holdfast_engine.integrity import digest, is_left_out
from holdfast_engine.model_errors import Interrupted, ModelCorrupt, ModelUnavailable, no_room, unwritable
from holdfast_engine.progress import Progress, Say

ATTEMPTS = 6
"""Tries in a row that bring not a single byte, after which a transfer is given up: with the pauses, half a minute."""
FIRST_PAUSE = 1.0
PARTIAL = ".partial"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a model; `path` relative to the model, `key` what the source calls it, `size` in bytes."""

    path: str
    size: int
    key: str
    sha256: str | None = None
    """Where the source tells it."""


@dataclass(frozen=True)
class Listing:
    """What a source holds now. `model`: path of the file or directory among `files` that is the model; "" for all."""

    version: str
    files: tuple[RemoteFile, ...]
    model: str = ""


@dataclass(frozen=True)
class Record:
    """What is known of a whole copy; `fetched` in seconds since 1970, `size` in bytes."""

    version: str
    source: str
    model: str
    digest: str
    size: int
    fetched: float


@dataclass(frozen=True)
class Body:
    """Bytes of a file from `start` on, which may be 0 although a later start was asked for."""

    start: int
    blocks: Iterable[bytes]


class Origin(Protocol):
    """A place that keeps models. Both methods raise ModelUnavailable."""

    def listing(self) -> Listing: ...

    def fetch(self, file: RemoteFile, target: Path, got: Callable[[int], None]) -> None:
        """Write the whole file to `target`, going on with what an interrupted call left; `got` counts new bytes."""


def relative(path: str) -> str | None:
    """A remote name as the path within a model; None for what digests leave out. Raises ModelUnavailable."""
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or path.startswith("/") or "\n" in path:
        raise ModelUnavailable(f"the source holds a file with the unusable name {path!r}")
    if any(is_left_out(part, top=not level) for level, part in enumerate(parts)):
        return None
    return "/".join(parts)


def provide(source: str, origin: Origin, cache: Path, expected: str | None, say: Say) -> Path:
    """The model's file or directory in `cache`, verified if `expected` is given.

    With `expected` a whole copy is used without asking the source. Without, the source is asked which version it
    holds; if it does not answer, the copy that was fetched last is used.

    Raises ModelCorrupt, ModelUnavailable.
    """
    name = re.sub(r"[^A-Za-z0-9.]+", "-", source.partition("://")[2]).strip("-.")[-60:]
    store = Store(cache / f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:8]}", say)
    with store.locked(), store.writing():
        if expected and (copy := store.with_digest(expected)):
            return copy
        try:
            listing = origin.listing()
        except ModelUnavailable as error:
            if expected is None and (latest := store.latest()):
                say(f"{error}; going on with the copy of {source} that was fetched last: {latest}")
                return latest
            raise
        return store.bring(source, origin, listing, expected)


class Store:
    """The copies of one source."""

    def __init__(self, folder: Path, say: Say) -> None:
        self.folder, self._say = folder, say

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps others from fetching the same; they wait. The kernel lets go of it when a process dies."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("wb")
        except OSError as error:
            raise unwritable(self.folder, error, 1, self._free()) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say(f"{self.folder}: another process is fetching; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(self.folder, error, 1, self._free()) from error

    def with_digest(self, expected: str) -> Path | None:
        """A whole copy that has this digest, read and found right just now; rotten ones are removed."""
        for record in self._records():
            model = self._model(record)
            if record.digest != expected or not model.exists():
                continue
            found = digest(model, self._say).sha256
            if found == expected:
                return model
            self._say(f"{model} has changed since it was fetched (now {found}): fetching it anew")
            shutil.rmtree(self.folder / record.version)
        return None

    def latest(self) -> Path | None:
        """The whole copy that was fetched last."""
        whole = [record for record in self._records() if self._model(record).exists()]
        return self._model(max(whole, key=lambda each: each.fetched)) if whole else None

    def bring(self, source: str, origin: Origin, listing: Listing, expected: str | None) -> Path:
        """Fetch what is missing of a version, verify and rename it."""
        version = hashlib.sha256(listing.version.encode()).hexdigest()[:12]
        whole, partial = self.folder / version, self.folder / f"{version}{PARTIAL}"
        if whole.exists():
            record = next((each for each in self._records() if each.version == version), None)
            if record is not None:
                if expected and record.digest != expected:
                    raise ModelCorrupt(expected, record.digest, source)
                return self._model(record)
            whole.rename(partial)  # ended between renaming and recording: look at it again
        self._fetch(source, origin, listing, partial)
        found = digest(partial / listing.model, self._say)
        if expected and found.sha256 != expected:
            raise ModelCorrupt(expected, found.sha256, source)
        self._say(f"{source} is here: {found.size} bytes, sha256 {found.sha256}")
        partial.rename(whole)
        self._write(Record(version, source, listing.model, found.sha256, found.size, time.time()))
        return whole / listing.model

    def _fetch(self, source: str, origin: Origin, listing: Listing, folder: Path) -> None:
        if not listing.files:
            raise ModelUnavailable(f"{source} holds no files: check the name")
        missing, present = [], 0
        for file in listing.files:
            path = folder / file.path
            if path.exists() and path.stat().st_size == file.size:
                present += file.size
            else:
                missing.append(file)
                present += min(_size(_partial(path)), file.size)
        total = sum(file.size for file in listing.files)
        if total - present > self._free():
            raise no_room(self.folder, total - present, self._free())
        if present:
            self._say(f"going on: {present} of {total} bytes of {source} are here already")
        progress = Progress(f"fetching {source}", total, self._say, already=present)
        for file in missing:
            target = folder / file.path
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                origin.fetch(file, target, progress.add)
                if (size := target.stat().st_size) != file.size:
                    target.unlink()
                    raise ModelUnavailable(f"{file.key} came with {size} bytes, {source} tells {file.size}: try again")
            except OSError as error:
                left = file.size - _size(_partial(target))
                raise unwritable(target, error, max(left, 1), self._free()) from error
        progress.end()

    def _free(self) -> int:
        folder = self.folder
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def _model(self, record: Record) -> Path:
        return self.folder / record.version / record.model

    def _records(self) -> list[Record]:
        records = []
        for path in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(ValueError, TypeError):  # of another version of this program: as good as none
                records.append(Record(**json.loads(path.read_text())))
        return records

    def _write(self, record: Record) -> None:
        path = self.folder / f"{record.version}.json"
        part = path.with_name(path.name + PARTIAL)
        part.write_text(json.dumps(asdict(record), indent=2) + "\n")
        part.replace(path)


def download(
    file: RemoteFile,
    target: Path,
    read: Callable[[int], Body],
    got: Callable[[int], None],
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Bring one file by `read(offset)`, which raises Interrupted when going on later may help.

    Every byte that arrived is kept. Gives up after ATTEMPTS tries in a row without a byte.
    """
    partial = _partial(target)
    if _size(partial) > file.size:
        partial.unlink()
    failures, rotten = 0, False
    while True:
        before = _size(partial)
        try:
            if before < file.size or not partial.exists():
                _append(partial, read(before), got)
            if (size := _size(partial)) != file.size:
                raise Interrupted(f"{size} of {file.size} bytes arrived")
        except Interrupted as error:
            failures = 0 if _size(partial) > before else failures + 1
            if failures >= ATTEMPTS:
                raise ModelUnavailable(f"{file.key} cannot be fetched: {error}") from error
            pause(FIRST_PAUSE * 2 ** max(failures - 1, 0))
            continue
        if file.sha256 is None or _sha256(partial) == file.sha256:
            break
        partial.unlink()
        if rotten:
            raise ModelUnavailable(f"{file.key} came twice with other bytes than its digest {file.sha256} says")
        rotten = True
    partial.replace(target)


def _append(partial: Path, body: Body, got: Callable[[int], None]) -> None:
    with partial.open("ab") as out:
        if body.start != out.tell():
            out.truncate(body.start)
            out.seek(body.start)
        for block in body.blocks:
            out.write(block)
            got(len(block))
        out.flush()
        os.fsync(out.fileno())


def _partial(target: Path) -> Path:
    return target.with_name(target.name + PARTIAL)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
