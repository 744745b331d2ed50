"""What a model's digest depends on, and what it does not."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_engine.integrity import check, digest
from holdfast_engine.model_errors import LONGEST_WORDS, ModelCorrupt, ModelUnavailable, plain
from holdfast_engine.progress import MIB, Progress

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0\n."), min_size=1, max_size=8)
PATHS = st.tuples(st.sampled_from(["", "part/", "part/deep/", "z/"]), NAMES).map("".join)
TREES = st.dictionaries(PATHS, st.binary(max_size=64), min_size=1, max_size=6).filter(
    lambda tree: not any(f"{one}/" in other for one in tree for other in tree) and "lost+found" not in tree
)


def write(root: Path, tree: dict[str, bytes]) -> Path:
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def sha256(root: Path) -> str:
    return digest(root, lambda _: None).sha256


GOLDEN = {"config.json": b"{}", "weights/a.bin": b"\0\1\2", "weights/B.bin": b"", "übung.txt": b"x\n"}


def test_the_digest_of_a_tiny_tree_is_the_golden_one(tmp_path: Path) -> None:
    write(tmp_path, GOLDEN)

    found = digest(tmp_path, lambda _: None)

    assert found.manifest.decode() == (
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a  2  config.json\n"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  0  weights/B.bin\n"
        "ae4b3280e56e2faf83f414a6e3dabe9d5fbe18976544c05fed121accb85b53fc  3  weights/a.bin\n"
        "73cb3858a687a8494ca3323053016282f3dad39d42cf62ca4e79dda2aac7d9ac  2  übung.txt\n"
    )
    assert found.sha256 == "6f70bc682d42791176fa3dffd653048802dd29ef11659f073b86b368025aec1c"
    assert found.size == 7


def test_a_shell_computes_the_same_digest(tmp_path: Path) -> None:
    write(tmp_path, {**GOLDEN, "two words.txt": b"w", ".cache/hub": b"left out", "weights/.hidden": b"left out"})
    script = (
        "find . -type f -not -path '*/.*' -printf '%P\\n' | LC_ALL=C sort | while IFS= read -r f; do "
        """printf '%s  %s  %s\\n' "$(sha256sum < "$f" | cut -c-64)" "$(stat -c %s "$f")" "$f"; done | sha256sum"""
    )

    printed = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert printed.split()[0] == sha256(tmp_path)


@given(tree=TREES, seed=st.randoms())
def test_the_order_of_creation_times_and_rights_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, bytes], seed: object
) -> None:
    shuffled = list(tree.items())
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    one = write(tmp_path_factory.mktemp("one"), tree)
    other = write(tmp_path_factory.mktemp("other"), dict(shuffled))
    first = other / shuffled[0][0]
    first.chmod(0o700)
    os.utime(first, (1, 1))
    (other / "an empty directory").mkdir()

    assert sha256(one) == sha256(other)


@given(tree=TREES, data=st.data())
def test_any_changed_byte_renamed_added_or_removed_file_changes_it(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, bytes], data: st.DataObject
) -> None:
    root = write(tmp_path_factory.mktemp("model"), tree)
    before = sha256(root)
    name = data.draw(st.sampled_from(sorted(tree)))
    path = root / name
    match data.draw(st.sampled_from(["byte", "longer", "renamed", "added", "removed"])):
        case "byte" if tree[name]:
            at = data.draw(st.integers(0, len(tree[name]) - 1))
            path.write_bytes(tree[name][:at] + bytes([tree[name][at] ^ 1]) + tree[name][at + 1 :])
        case "renamed":
            path.rename(path.with_name(f"{path.name}-renamed-and-new"))
        case "added":
            path.with_name(f"{path.name}-added-and-new").write_bytes(b"")
        case "removed" if len(tree) > 1:
            path.unlink()
        case _:
            path.write_bytes(tree[name] + b"\0")

    assert sha256(root) != before


@given(content=st.binary(max_size=4096))
def test_a_files_digest_is_what_sha256sum_prints(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("model") / "model.gguf"
    file.write_bytes(content)

    assert sha256(file) == hashlib.sha256(content).hexdigest()


def test_hidden_files_caches_and_what_a_file_system_brings_along_are_left_out(tmp_path: Path) -> None:
    plain_tree = write(tmp_path / "plain", GOLDEN)
    hidden = {".cache/huggingface/x": b"1", ".gitattributes": b"2", "weights/.DS_Store": b"3", "lost+found/inode": b"4"}
    more = write(tmp_path / "more", {**GOLDEN, **hidden})

    assert sha256(plain_tree) == sha256(more)
    assert sha256(plain_tree) != sha256(write(tmp_path / "deeper", {**GOLDEN, "weights/lost+found/x": b"4"}))


def test_links_inside_count_as_what_they_lead_to(tmp_path: Path) -> None:
    plain_tree = write(tmp_path / "plain", {"a.bin": b"a", "b.bin": b"b", "again/b.bin": b"b"})
    mounted = write(tmp_path / "mounted", {"..2026/a.bin": b"a", "..2026/d/b.bin": b"b"})  # as the kubelet mounts
    (mounted / "..data").symlink_to("..2026")
    (mounted / "a.bin").symlink_to("..data/a.bin")
    (mounted / "b.bin").symlink_to("..data/d/b.bin")
    (mounted / "again").symlink_to("..data/d")
    (tmp_path / "link").symlink_to(mounted)

    assert sha256(mounted) == sha256(plain_tree)
    assert sha256(tmp_path / "link") == sha256(plain_tree)


@pytest.mark.parametrize(
    ("link", "target", "words"),
    [
        ("out", "/etc/hostname", "leads out of"),
        ("up", "..", "leads out of"),
        ("sub/loop", "..", "leads back"),
        ("gone", "nowhere", "leads nowhere"),
        ("self", "self", "leads nowhere"),
    ],
)
def test_links_that_cannot_be_vouched_for_are_refused(tmp_path: Path, link: str, target: str, words: str) -> None:
    root = write(tmp_path / "model", {"sub/a": b"a"})
    (root / link).symlink_to(target)

    with pytest.raises(ModelUnavailable, match=words):
        digest(root, lambda _: None)


def test_what_is_no_model_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "odd", {"two\nlines": b""})
    (tmp_path / "pipes").mkdir()
    os.mkfifo(tmp_path / "pipes" / "pipe")

    for name, words in (
        ("empty", "holds no file"),
        ("odd", "line break"),
        ("pipes", "neither a file nor a directory"),
        ("absent", "cannot be read: No such file"),
    ):
        with pytest.raises(ModelUnavailable, match=words):
            digest(tmp_path / name, lambda _: None)


def test_a_wrong_digest_is_told_with_both_and_with_what_to_do(tmp_path: Path) -> None:
    file = write(tmp_path, {"m": b"m"}) / "m"
    right = hashlib.sha256(b"m").hexdigest()

    assert check(file, right.upper(), lambda _: None).sha256 == right
    with pytest.raises(ModelCorrupt) as caught:
        check(file, "0" * 64, lambda _: None)

    assert str(caught.value).startswith(f"ModelCorrupt: expected {'0' * 64}, found {right} at {file}; put the right")
    assert "\n" not in str(caught.value)


def test_progress_is_told_now_and_then_and_at_the_end() -> None:
    now, lines = [0.0], list[str]()
    progress = Progress("verifying m", 100 * MIB, lines.append, already=20 * MIB, interval=5, clock=lambda: now[0])

    for second in range(1, 9):
        now[0] = float(second)
        progress.add(10 * MIB)
    progress.end()

    assert lines == [
        "verifying m: 70 of 100 MiB, 70 %, 10.0 MiB/s",
        "verifying m: 100 of 100 MiB, 100 %, 10.0 MiB/s",
    ]


def test_what_libraries_say_is_told_without_signed_queries() -> None:
    said = plain(OSError("GET https://cdn/file?X-Amz-Signature=abc&x=1\nfailed" + "x" * 5000))

    assert said.startswith("OSError: GET https://cdn/file?… failedxxx")
    assert len(said) <= LONGEST_WORDS + 10
