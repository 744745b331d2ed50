"""Images: archives, what goes over to containerd, and when something is built again."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from holdfast_testbed.bare import transfer
from holdfast_testbed.bare.images import archive_images
from holdfast_testbed.errors import BuildError, TestbedError
from holdfast_testbed.images.archive import ImageSettings, file_digest, write_archive, write_layer
from holdfast_testbed.images.build import build_images
from holdfast_testbed.images.layers import drop_files_of, pinned_versions, pip_command
from holdfast_testbed.images.project import RECIPES, Project, Recipe, content_key, find_project, read_project

SETTINGS = ImageSettings(entrypoint=("python3",), env={"A": "b"})


def make_layer(folder: Path, name: str, files: dict[str, str], prefix: str = "opt/app") -> Path:
    root = folder / f"{name}-root"
    for place, text in files.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text)
    target = folder / f"{name}.tar"
    write_layer(target, root, prefix, uid=0)
    return target


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    layers = [make_layer(tmp_path, "low", {"a.txt": "a"}), make_layer(tmp_path, "high", {"b/c.txt": "c"})]
    write_archive(tmp_path / "image.tar", ["holdfast/app:dev", "holdfast/app:1"], SETTINGS, layers)
    return tmp_path / "image.tar"


def received(archive: Path, present: set[str]) -> dict[str, bytes]:
    sink = io.BytesIO()
    transfer.send(archive, present, sink)
    sink.seek(0)
    with tarfile.open(fileobj=sink) as tar:
        return {member.name: content.read() for member in tar if (content := tar.extractfile(member))}


def test_the_same_inputs_give_the_same_archive(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        write_archive(folder / "image.tar", ["app:1"], SETTINGS, [make_layer(folder, "low", {"a.txt": "a"})])
        digests.add(file_digest(folder / "image.tar"))
    assert len(digests) == 1


def test_a_layer_has_its_parent_folders_and_belongs_to_root(tmp_path: Path) -> None:
    with tarfile.open(make_layer(tmp_path, "low", {"a.txt": "a"})) as tar:
        assert [member.name for member in tar] == ["opt", "opt/app", "opt/app/a.txt"]
        assert {member.uid for member in tar.getmembers()} == {0}


def test_images_are_named_as_containerd_names_them(archive: Path) -> None:
    assert set(archive_images(archive)) == {"docker.io/holdfast/app:dev", "docker.io/holdfast/app:1"}
    assert len(set(archive_images(archive).values())) == 1


@pytest.mark.parametrize(
    ("tag", "full"),
    [
        ("app:1", "docker.io/library/app:1"),
        ("holdfast/app:1", "docker.io/holdfast/app:1"),
        ("quay.example/app:1", "quay.example/app:1"),
        ("localhost/app:1", "localhost/app:1"),
    ],
)
def test_a_tag_is_completed_with_its_registry(tag: str, full: str) -> None:
    assert transfer.full_name(tag) == full


def test_what_is_sent_is_complete_and_consistent(archive: Path) -> None:
    files = received(archive, set())
    index = json.loads(files["index.json"])
    names = {entry["annotations"]["io.containerd.image.name"] for entry in index["manifests"]}
    assert names == {"docker.io/holdfast/app:dev", "docker.io/holdfast/app:1"}
    manifest = json.loads(files["blobs/" + index["manifests"][0]["digest"].replace(":", "/")])
    for part in (manifest["config"], *manifest["layers"]):
        assert len(files["blobs/" + part["digest"].replace(":", "/")]) == part["size"]


def test_layers_that_are_there_are_not_sent_but_still_named(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        low, high = transfer.read_images(tar)[0].layer_digests
    files = received(archive, {low})
    assert "blobs/" + high.replace(":", "/") in files
    assert "blobs/" + low.replace(":", "/") not in files
    assert low in json.dumps([json.loads(text) for text in files.values() if text.startswith(b'{"schema')])


def test_a_file_that_is_no_archive_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_text("no tar")
    with pytest.raises(TestbedError, match="is not a docker archive"):
        archive_images(tmp_path / "x.tar")


def test_files_of_a_lower_layer_are_dropped_when_they_are_equal(tmp_path: Path) -> None:
    lower = make_layer(tmp_path, "low", {"same/a.py": "a", "other.py": "old", "gone.py": "x"})
    root = tmp_path / "root"
    (root / "same").mkdir(parents=True)
    (root / "same/a.py").write_text("a")
    (root / "other.py").write_text("new")
    drop_files_of(lower, root, "opt/app")
    assert [path.name for path in root.rglob("*")] == ["other.py"]


def test_versions_of_a_layer_are_read_from_its_metadata(tmp_path: Path) -> None:
    layer = make_layer(tmp_path, "low", {"click-8.1.0.dist-info/METADATA": "", "click/a.py": ""})
    assert pinned_versions(layer) == ["click==8.1.0"]


def test_extras_that_name_others_of_the_project_are_resolved() -> None:
    extras = {"all": ("holdfast[one,two]", "a>=1"), "one": ("b[x]>=2", "holdfast[two]"), "two": ("c",)}
    recipe = Recipe("engine", "all", (), "m")
    assert Project(Path(), "1", ("core",), extras, {}).requirements(recipe) == ("core", "b[x]>=2", "c", "a>=1")
    for recipe in RECIPES.values():
        found = read_project(find_project(Path(__file__))).requirements(recipe)
        assert not [each for each in found if each.startswith("holdfast")]


def test_the_project_tells_what_its_images_need() -> None:
    project = read_project(find_project(Path(__file__)))
    assert any(wanted.startswith("kopf") for wanted in project.requirements(RECIPES["operator"]))
    assert "holdfast/py.typed" in project.sources(RECIPES["engine"])
    assert "holdfast_engine/__main__.py" in project.sources(RECIPES["engine"])
    assert not any("__pycache__" in place for place in project.sources(RECIPES["engine"]))


def test_a_layers_name_changes_with_content_name_and_options(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    keys = [content_key({"a": one}), content_key({"a": two}), content_key({"b": one}), content_key({"a": one}, "x")]
    assert len(set(keys)) == 4
    assert content_key({"a": one}) == keys[0]


def test_pip_installs_for_the_images_python_whatever_runs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.version_info", (3, 13, 0))
    command = pip_command(tmp_path, ("click>=8",), tmp_path / "constraints.txt")
    assert command[command.index("--python-version") + 1] == "3.11"
    assert "--only-binary=:all:" in command


def test_an_unknown_image_or_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no image nothing"):
        build_images(["nothing"])
    with pytest.raises(BuildError, match="--source"):
        build_images(source=tmp_path)
