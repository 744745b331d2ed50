"""The real engine process and a model's digest: served when it is right, never when it is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.integration
Launch = Callable[..., Any]
WRONG = "0" * 64
BIG = 16 << 30
"""Bytes of a sparse file that takes seconds to read and no room."""


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "holdfast_engine", *map(str, arguments)]
    return subprocess.run(whole, capture_output=True, text=True, timeout=120)


def digest_of(path: Path) -> str:
    return command("digest", path).stdout.split()[0]


def test_the_command_prints_what_sha256sum_prints_and_json_and_the_manifest(model: Path, tmp_path: Path) -> None:
    printed = subprocess.run(["sha256sum", str(model)], capture_output=True, text=True, check=True).stdout
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tiny.gguf").write_bytes(model.read_bytes())

    told = command("digest", model)
    tree = json.loads(command("digest", "-o", "json", folder).stdout)
    manifest = command("digest", "-o", "manifest", folder).stdout

    assert told.stdout == printed
    assert "100 %" in told.stderr
    assert tree["files"] == [{"path": "tiny.gguf", "size": model.stat().st_size, "sha256": printed.split()[0]}]
    assert manifest == f"{printed.split()[0]}  {model.stat().st_size}  tiny.gguf\n"
    assert tree["sha256"] == digest_of(folder) != printed.split()[0]


def test_a_file_and_a_directory_with_the_right_digest_are_served(launch: Launch, model: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(model.read_bytes())
    (tmp_path / "README.md").write_text("A tiny model.")

    for source in (model, tmp_path):
        engine = launch("--sha256", digest_of(source), model=source).wait_ready()
        assert engine.ask(max_tokens=2).status_code == 200
        engine.stop()


def test_a_wrong_digest_ends_the_process_with_its_code_and_words_and_nothing_is_served(
    launch: Launch, model: Path, tmp_path: Path
) -> None:
    words = tmp_path / "termination-log"
    words.touch()
    engine = launch("--sha256", WRONG, "--termination-log", str(words))
    seen = set()
    while engine.process.poll() is None:
        seen.add(engine.status("/health"))
        try:
            seen.add(engine.ask(max_tokens=1).status_code)
        except httpx.TransportError:
            seen.add(None)

    assert engine.process.wait() == 65
    assert 200 not in seen
    told = words.read_text()
    assert told.startswith(f"ModelCorrupt: expected {WRONG}, found {digest_of(model)} at {model}; put the right files")
    assert told.count("\n") == 1


def test_a_changed_byte_is_noticed_by_an_engine_that_is_started_anew(
    launch: Launch, model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "tiny.gguf"
    copy.write_bytes(model.read_bytes())
    wanted = digest_of(copy)
    engine = launch("--sha256", wanted, model=copy).wait_ready()
    engine.stop()
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)

    assert launch("--sha256", wanted, model=copy).process.wait(60) == 65


def test_the_port_answers_while_a_large_model_is_verified_and_sigterm_ends_it_at_once(
    launch: Launch, tmp_path: Path
) -> None:
    large = tmp_path / "large.gguf"
    with large.open("wb") as file:
        file.truncate(BIG)
    engine = launch("--sha256", WRONG, model=large)
    answers = 0
    slowest = 0.0
    while answers < 20:
        assert engine.process.poll() is None
        began = time.monotonic()
        live = engine.status("/livez")
        if live is None:
            continue
        slowest = max(slowest, time.monotonic() - began)
        assert live == 200
        health = engine.client.get("/health")
        assert (health.status_code, health.json()["reason"]) == (503, "loading")
        answers += 1
    print(f"slowest answer to /livez while verifying: {slowest * 1000:.0f} ms")

    engine.process.terminate()

    assert engine.process.wait(60) == 0


def test_a_path_that_is_not_there_and_a_digest_that_is_none_are_usage_errors(tmp_path: Path, model: Path) -> None:
    serve = ("serve", "--served-name", "m", "--model")

    absent = command(*serve, tmp_path / "absent")
    short = command(*serve, model, "--sha256", "abc")
    unknown = command(*serve, "ftp://host/m")

    assert [each.returncode for each in (absent, short, unknown)] == [2, 2, 2]
    assert "does not exist" in absent.stderr
    assert "64 hexadecimal digits" in short.stderr
    assert "unknown scheme ftp://" in unknown.stderr


def test_a_directory_without_a_gguf_file_ends_the_process_with_a_sentence(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    words = tmp_path / ".termination-log"
    words.touch()

    engine = launch("--termination-log", str(words), model=tmp_path)

    assert engine.process.wait(60) == 66
    assert words.read_text() == f"ModelUnavailable: {tmp_path} must hold exactly one GGUF file to load; found: none\n"
