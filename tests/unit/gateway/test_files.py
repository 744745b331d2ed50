"""Files are complete or absent, change only when their content does, and the last good ones survive."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.unit.gateway.builders import route

from holdfast_gateway import files
from holdfast_gateway.memory import NAME, Memory, recall, remember
from holdfast_gateway.options import Options, Role
from holdfast_gateway.render.files import GATEWAY, LISTENERS, Renderer, service_file
from holdfast_gateway.render.files import files as render_files
from holdfast_gateway.state import Snapshot

OPTIONS = Options(role=Role.REGIONAL)


def written(directory: Path, *services: str) -> list[str]:
    snapshot = Snapshot(tuple(route(service) for service in services))
    return files.write(directory, render_files(snapshot, OPTIONS, str(directory)))


def test_nothing_is_written_twice(tmp_path: Path) -> None:
    assert written(tmp_path, "chat")
    assert written(tmp_path, "chat") == []


def test_files_of_services_that_are_gone_are_removed_last(tmp_path: Path) -> None:
    written(tmp_path, "chat", "code")
    assert written(tmp_path, "chat")[-1] == service_file("default/code")
    assert {path.name for path in tmp_path.glob("xds-*")} == {service_file("default/chat"), GATEWAY}


def test_no_unfinished_file_remains(tmp_path: Path) -> None:
    written(tmp_path, "chat")
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".new")]


def test_init_makes_files_that_open_no_port_for_clients_or_peers(tmp_path: Path) -> None:
    files.initialise(tmp_path, OPTIONS)
    assert yaml.safe_load((tmp_path / LISTENERS).read_text()) == {"resources": []}


def test_init_keeps_the_last_good_configuration_but_renews_the_bootstrap(tmp_path: Path) -> None:
    files.initialise(tmp_path, OPTIONS)
    written(tmp_path, "chat")
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    files.initialise(tmp_path, Options(role=Role.REGIONAL, metrics_port=9999))
    after = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"bootstrap.yaml"}


def test_what_is_remembered_is_recalled(tmp_path: Path) -> None:
    memory = Memory({"in-cluster": {"default/chat-route": route()}}, {"us.example": ("192.0.2.1",)})
    remember(tmp_path, memory)
    assert recall(tmp_path) == memory


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"routes": {"a": {"b": {}}}, "addresses": {}}'])
def test_a_broken_memory_is_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    assert recall(tmp_path) == Memory()


def test_without_a_memory_nothing_is_known(tmp_path: Path) -> None:
    assert recall(tmp_path) == Memory()


def test_a_file_that_somebody_else_changed_or_removed_is_written_again(tmp_path: Path) -> None:
    folder = files.Folder(tmp_path)
    built = Renderer(OPTIONS, str(tmp_path), files.to_text).files(Snapshot((route("chat"),)))
    folder.write(built)
    (tmp_path / GATEWAY).write_text("{}")
    (tmp_path / LISTENERS).unlink()

    assert folder.write(built) == [GATEWAY, LISTENERS]
    assert folder.write(built) == []


def test_a_file_that_could_not_be_written_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = files.Folder(tmp_path)
    built = Renderer(OPTIONS, str(tmp_path), files.to_text).files(Snapshot((route("chat"),)))
    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", lambda _file: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            folder.write(built)

    assert set(folder.write(built)) == set(built)
