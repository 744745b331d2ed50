"""What must hold of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast_testbed.bare import debian, host
from holdfast_testbed.errors import HostError


def test_the_release_is_read_from_os_release() -> None:
    assert host.debian_release('ID=debian\nVERSION_ID="12"\nNAME="Debian"\n') == ("debian", "12")
    assert host.debian_release("") == ("", "")


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="XDG_CACHE_HOME"):
        host.require_space(tmp_path / "not" / "there", 1e9, "Building")


def test_other_users_are_told_to_use_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(HostError, match="root"):
        host.require_root()


def test_a_package_is_missing_when_its_file_is_and_is_named_once(tmp_path: Path) -> None:
    present = tmp_path / "present"
    present.touch()
    needed = {str(present): "one", "/no/such/file": "two", "no-such-command": "two", "sh": "dash"}
    assert debian.missing_packages(needed) == ["two"]
