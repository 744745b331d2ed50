"""Fetching into a cache: going on, giving up, room, rot, and a source that is away. The source is in memory."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast_engine import fetch
from holdfast_engine.fetch import ATTEMPTS, Body, Listing, RemoteFile, download, provide, relative
from holdfast_engine.integrity import digest
from holdfast_engine.model_errors import Interrupted, ModelCorrupt, ModelUnavailable
from holdfast_engine.prepare import leave_word, loadable
from holdfast_engine.sources import is_remote, local_path, obtain

SOURCE = "mem://bucket/models/llama"
TREE = {"config.json": b"{}", "weights/1.bin": bytes(range(256)) * 40, "weights/2.bin": b"w" * 5000}
Usage = namedtuple("Usage", "total used free")


class MemoryOrigin:
    """Holds a tree; `cuts` are byte counts after which a transfer breaks off, one for each try."""

    def __init__(self, tree: dict[str, bytes], single: bool = False, tells_digests: bool = False) -> None:
        self.tree, self.single, self.tells_digests = dict(tree), single, tells_digests
        self.cuts: list[int] = []
        self.ranges = True
        self.down = False
        self.reads: list[tuple[str, int]] = []

    def listing(self) -> Listing:
        if self.down:
            raise ModelUnavailable("mem:// cannot be reached")
        files = []
        for name, content in self.tree.items():
            sha256 = hashlib.sha256(content).hexdigest()
            files.append(RemoteFile(name, len(content), name, sha256 if self.tells_digests else None))
        version = hashlib.sha256(repr(sorted(self.tree.items())).encode()).hexdigest()
        return Listing(version, tuple(files), model=files[0].path if self.single else "")

    def fetch(self, file: RemoteFile, target: Path, got: Callable[[int], None]) -> None:
        download(file, target, lambda offset: self.read(file.key, offset), got, pause=lambda _: None)

    def read(self, key: str, offset: int) -> Body:
        self.reads.append((key, offset))
        start = offset if self.ranges else 0
        return Body(start, self._blocks(self.tree[key][start:]))

    def _blocks(self, content: bytes) -> Iterator[bytes]:
        cut = self.cuts.pop(0) if self.cuts else len(content)
        for at in range(0, min(cut, len(content)), 100):
            yield content[at : min(at + 100, cut)]
        if cut < len(content):
            raise Interrupted("connection reset")


def quiet(_: str) -> None:
    pass


def digest_of(root: Path) -> str:
    return digest(root, quiet).sha256


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_model_is_fetched_once_and_found_again(tmp_path: Path) -> None:
    origin, lines = MemoryOrigin(TREE), list[str]()

    first = provide(SOURCE, origin, tmp_path, None, lines.append)
    reads = list(origin.reads)

    assert content(first) == TREE
    assert provide(SOURCE, origin, tmp_path, digest_of(first), quiet) == first
    assert provide(SOURCE, origin, tmp_path, None, quiet) == first
    assert origin.reads == reads
    assert lines[-1] == f"{SOURCE} is here: {sum(map(len, TREE.values()))} bytes, sha256 {digest_of(first)}"


def test_a_single_file_is_a_model_that_is_a_file(tmp_path: Path) -> None:
    origin = MemoryOrigin({"deep/m.gguf": b"gguf"}, single=True)

    model = provide(SOURCE, origin, tmp_path, hashlib.sha256(b"gguf").hexdigest(), quiet)

    assert model.name == "m.gguf"
    assert model.read_bytes() == b"gguf"


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_transfer_that_breaks_off_goes_on_where_it_was(tmp_path: Path, ranges: bool) -> None:
    origin = MemoryOrigin({"m": TREE["weights/1.bin"]}, single=True)
    origin.cuts, origin.ranges = [250, 4000], ranges

    model = provide(SOURCE, origin, tmp_path, None, quiet)

    assert model.read_bytes() == TREE["weights/1.bin"]
    assert [offset for _, offset in origin.reads] == ([0, 250, 4250] if ranges else [0, 250, 4000])


def test_what_an_earlier_process_left_is_used(tmp_path: Path) -> None:
    origin, lines = MemoryOrigin(TREE), list[str]()
    origin.cuts = [2, 300, *[0] * ATTEMPTS]
    with pytest.raises(ModelUnavailable, match=r"weights/1\.bin cannot be fetched: connection reset"):
        provide(SOURCE, origin, tmp_path, None, quiet)
    origin.reads.clear()

    model = provide(SOURCE, origin, tmp_path, None, lines.append)

    assert origin.reads == [("weights/1.bin", 300), ("weights/2.bin", 0)]
    assert content(model) == TREE
    assert lines[0] == f"going on: 302 of {sum(map(len, TREE.values()))} bytes of {SOURCE} are here already"


def test_another_version_is_never_mixed_with_what_is_left_of_the_last(tmp_path: Path) -> None:
    origin = MemoryOrigin(TREE)
    origin.cuts = [2, 300, *[0] * ATTEMPTS]
    with pytest.raises(ModelUnavailable):
        provide(SOURCE, origin, tmp_path, None, quiet)
    origin.tree["weights/1.bin"] = b"other" * 2048
    origin.reads.clear()

    assert content(provide(SOURCE, origin, tmp_path, None, quiet)) == origin.tree
    assert ("weights/1.bin", 0) in origin.reads


def test_bytes_that_do_not_have_the_digest_that_the_source_tells_are_fetched_once_more_and_then_refused(
    tmp_path: Path,
) -> None:
    origin = MemoryOrigin({"m": b"good"}, tells_digests=True)
    listing = origin.listing()
    origin.tree["m"] = b"evil"

    with pytest.raises(ModelUnavailable, match="came twice with other bytes"):
        origin.fetch(listing.files[0], tmp_path / "m", lambda _: None)

    assert origin.reads == [("m", 0), ("m", 0)]
    assert list(tmp_path.iterdir()) == []


def test_another_content_than_was_asked_for_is_never_renamed_nor_fetched_again(tmp_path: Path) -> None:
    origin = MemoryOrigin(TREE)
    for _ in range(2):
        with pytest.raises(ModelCorrupt, match=f"expected {'0' * 64}, found .* at {SOURCE}"):
            provide(SOURCE, origin, tmp_path, "0" * 64, quiet)

    assert len(origin.reads) == len(TREE)
    [partial] = tmp_path.glob("*/*.partial")
    assert content(partial) == TREE

    assert provide(SOURCE, origin, tmp_path, digest_of(partial), quiet).name == partial.name.removesuffix(".partial")


def test_a_whole_copy_of_another_content_is_refused_until_the_source_changes(tmp_path: Path) -> None:
    origin = MemoryOrigin(TREE)
    provide(SOURCE, origin, tmp_path, None, quiet)
    newer = {**TREE, "config.json": b"[]"}
    (tmp_path / "newer").mkdir()
    wanted = digest_of(provide("mem://x/newer", MemoryOrigin(newer), tmp_path / "newer", None, quiet))

    with pytest.raises(ModelCorrupt):
        provide(SOURCE, origin, tmp_path, wanted, quiet)
    origin.tree = newer

    assert content(provide(SOURCE, origin, tmp_path, wanted, quiet)) == newer


def test_a_copy_that_rots_on_disk_is_fetched_anew(tmp_path: Path) -> None:
    origin, lines = MemoryOrigin(TREE), list[str]()
    model = provide(SOURCE, origin, tmp_path, None, quiet)
    wanted = digest_of(model)
    (model / "weights/1.bin").write_bytes(b"x" * len(TREE["weights/1.bin"]))

    assert content(provide(SOURCE, origin, tmp_path, wanted, lines.append)) == TREE
    assert any("has changed since it was fetched" in line for line in lines)


def test_a_source_that_is_away_is_not_needed_for_what_is_here(tmp_path: Path) -> None:
    origin, lines = MemoryOrigin(TREE), list[str]()
    model = provide(SOURCE, origin, tmp_path, None, quiet)
    origin.down = True

    assert provide(SOURCE, origin, tmp_path, digest_of(model), quiet) == model
    assert provide(SOURCE, origin, tmp_path, None, lines.append) == model
    assert "cannot be reached; going on with the copy" in lines[0]
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        provide(SOURCE, origin, tmp_path, "0" * 64, quiet)


def test_too_little_room_is_told_before_a_byte_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = MemoryOrigin(TREE)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10_000, 9_000, 1_000))

    with pytest.raises(ModelUnavailable, match=rf"{tmp_path}/.* has 1000 bytes free, 15242 more are needed"):
        provide(SOURCE, origin, tmp_path, None, quiet)

    assert origin.reads == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "bytes free, .* more are needed"),
        (errno.EROFS, "cannot be written .*Read-only file system.*mount a volume"),
        (errno.EIO, "cannot be written: OSError"),
    ],
)
def test_a_write_that_the_system_refuses_names_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fetch, "_append", refuse)

    with pytest.raises(ModelUnavailable, match=words) as caught:
        provide(SOURCE, MemoryOrigin(TREE), tmp_path, None, quiet)
    assert str(tmp_path) in str(caught.value)


def test_a_cache_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(ModelUnavailable, match="cannot be written"):
        provide(SOURCE, MemoryOrigin(TREE), tmp_path / "file" / "cache", None, quiet)


def test_remote_names_stay_inside_the_model_and_hidden_ones_are_left_out() -> None:
    assert relative("a/b.bin") == "a/b.bin"
    assert relative(".gitattributes") is relative("a/.cache/b") is relative("lost+found/x") is None
    for name in ("../b", "a/../../b", "/etc/passwd", "", "a\nb"):
        with pytest.raises(ModelUnavailable, match="unusable name"):
            relative(name)


def test_a_source_is_a_path_or_a_known_url() -> None:
    assert [is_remote(each) for each in ("hf://o/m", "s3://b/m", "oci://r/m:1")] == [True] * 3
    assert not any(is_remote(each) for each in ("/models/m", "hf", "file:///m", "http://x/m"))
    assert local_path("file:///models/m") == local_path("/models/m") == Path("/models/m")
    with pytest.raises(ValueError, match="unknown scheme http://; use a path, file://, hf://, s3://, oci://"):
        local_path("http://x/m")


def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    monkeypatch.delitem(__import__("sys").modules, "holdfast_engine.origins.s3", raising=False)

    with pytest.raises(ModelUnavailable, match=r"needs the package boto3.*holdfast\[engine-s3\]"):
        obtain("s3://bucket/m", tmp_path, None, quiet)


def test_the_one_gguf_file_of_a_directory_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "old.gguf").write_bytes(b"")

    assert loadable(tmp_path) == loadable(tmp_path / "m.gguf") == tmp_path / "m.gguf"
    (tmp_path / "n.gguf").write_bytes(b"")
    with pytest.raises(ModelUnavailable, match=r"exactly one GGUF file to load; found: m\.gguf, n\.gguf"):
        loadable(tmp_path)


def test_last_words_go_only_where_the_kubelet_made_a_file_for_them(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("something longer than the words")
    leave_word(tmp_path / "log", "ModelCorrupt: no")
    leave_word(tmp_path / "absent", "ModelCorrupt: no")
    leave_word(tmp_path, "ModelCorrupt: no")

    assert (tmp_path / "log").read_text() == "ModelCorrupt: no\n"
    assert not (tmp_path / "absent").exists()
