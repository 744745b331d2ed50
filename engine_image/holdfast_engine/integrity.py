"""One digest for a model, be it a file or a directory.

A file's digest is the SHA-256 of its bytes, as `sha256sum` prints it. A directory's is the SHA-256 of its manifest: for
each file one line

    {sha256 of the bytes, hex}  {size in bytes, decimal}  {path}\\n

with two spaces between the fields, `path` relative to the directory with `/` between its parts, and the lines ordered
by the bytes of `path`. So neither times, rights, owners, empty directories nor the order of creation matter; every
byte, name and file does.

Left out are files and directories whose name begins with a dot (`.cache` of hubs, `.git`, `.DS_Store`), and
`lost+found` at the top (of a volume's own file system). Symbolic links count as what they lead to, under their own
name, and must lead to somewhere inside the directory: what lies outside could change unseen. Names with a line break,
and what is neither file nor directory, are refused.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast_engine.model_errors import ModelCorrupt, ModelUnavailable
from holdfast_engine.progress import Progress, Say


@dataclass(frozen=True)
class FileDigest:
    """One file: `path` relative to the model's directory; of a model that is a file, its name."""

    path: str
    size: int
    sha256: str

    @property
    def line(self) -> bytes:
        return b"%s  %d  %s\n" % (self.sha256.encode(), self.size, os.fsencode(self.path))


@dataclass(frozen=True)
class Digest:
    sha256: str
    files: tuple[FileDigest, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(each.size for each in self.files)

    @property
    def manifest(self) -> bytes:
        return manifest(self.files)


def manifest(files: tuple[FileDigest, ...]) -> bytes:
    """What a directory's digest is the SHA-256 of."""
    return b"".join(each.line for each in sorted(files, key=lambda each: os.fsencode(each.path)))


def is_left_out(name: str, *, top: bool) -> bool:
    """Whether a digest leaves out what has this name; `top`: directly in the model's directory."""
    return name.startswith(".") or (top and name == "lost+found")


def digest(model: Path, say: Say) -> Digest:
    """Read all of `model`, a file or directory; `say` gets progress lines. Raises ModelUnavailable."""
    try:
        root = model.resolve(strict=True)
        if not root.is_dir():
            size = _size(root)
            progress = Progress(f"verifying {model}", size, say)
            file = FileDigest(model.name, size, _sha256(root, progress.add))
            progress.end()
            return Digest(file.sha256, (file,))
        found = sorted(_walk(root, root, "", (root,)), key=lambda each: os.fsencode(each[0]))
        sizes = [_size(path) for _, path in found]
        progress = Progress(f"verifying {model}", sum(sizes), say)
        files = tuple(
            FileDigest(name, size, _sha256(path, progress.add)) for (name, path), size in zip(found, sizes, strict=True)
        )
        progress.end()
    except OSError as error:
        raise ModelUnavailable(f"{error.filename or model} cannot be read: {error.strerror or error}") from error
    if not files:
        raise ModelUnavailable(f"{model} holds no file: is the volume mounted, and the path right?")
    return Digest(hashlib.sha256(manifest(files)).hexdigest(), files)


def check(model: Path, expected: str, say: Say) -> Digest:
    """Compare with the digest that is wanted. Raises ModelCorrupt, ModelUnavailable."""
    found = digest(model, say)
    if found.sha256 != expected.lower():
        raise ModelCorrupt(expected.lower(), found.sha256, str(model))
    return found


def _walk(root: Path, folder: Path, prefix: str, chain: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    """(name in the manifest, real path) of every file that counts; `chain` are the real directories above."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda each: os.fsencode(each.name)):
            if is_left_out(entry.name, top=not prefix):
                continue
            name = prefix + entry.name
            if "\n" in name:
                raise ModelUnavailable(f"the name {name!r} has a line break: rename it")
            path = Path(entry.path)
            if entry.is_symlink():
                path = _target(root, path)
            if not path.is_dir():
                yield name, path
            elif path in chain:
                raise ModelUnavailable(f"the link {root / name} leads back to a directory that it lies in: remove it")
            else:
                yield from _walk(root, path, f"{name}/", (*chain, path))


def _target(root: Path, link: Path) -> Path:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ModelUnavailable(f"the link {link} leads nowhere: remove it") from error
    if not target.is_relative_to(root):
        raise ModelUnavailable(f"the link {link} leads out of {root}: copy the model with `cp -rL`")
    return target


def _size(path: Path) -> int:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ModelUnavailable(f"{path} is neither a file nor a directory")
    return status.st_size


def _sha256(path: Path, read: Callable[[int], None]) -> str:
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(_Counted(file, read), "sha256").hexdigest()


class _Counted:
    """A file for `hashlib.file_digest`, whose reads are reported."""

    def __init__(self, file: io.FileIO, read: Callable[[int], None]) -> None:
        self._file, self._read = file, read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        count = self._file.readinto(buffer) or 0
        self._read(count)
        return count
