"""Certificates that a gateway could not use are refused before it starts, with what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from holdfast_gateway.__main__ import main


@pytest.mark.parametrize(
    ("flag", "there", "words"),
    [
        ("--peer-tls", [], "has no tls.crt and no tls.key and no ca.crt: it must hold tls.crt, tls.key, ca.crt"),
        ("--peer-tls", ["tls.crt", "tls.key"], "has no ca.crt"),
        ("--client-tls", ["tls.crt"], "has no tls.key: it must hold tls.crt, tls.key"),
    ],
)
def test_a_folder_that_lacks_a_file_is_named_with_it(tmp_path: Path, flag: str, there: list[str], words: str) -> None:
    for name in there:
        (tmp_path / name).touch()
    result = CliRunner().invoke(main, ["init", "--dir", str(tmp_path / "envoy"), flag, str(tmp_path)])
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert not (tmp_path / "envoy").exists()


def test_a_folder_may_be_given_by_a_path_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["init", "--dir", "envoy", "--client-tls", "."])
    assert result.exit_code == 0, result.output


def test_a_mode_without_certificates_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["init", "--dir", str(tmp_path), "--peer-tls-mode", "Preferred"])
    assert (result.exit_code, "give that as well" in result.output) == (2, True)
