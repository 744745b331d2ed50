"""A testbed that exists on paper only."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast_testbed.bare.site import Site, bare_site
from holdfast_testbed.state import Bed


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Bed("paper", 3, "bare", False, ("us-east", "eu-west", "ap-south"))


@pytest.fixture
def site(bed: Bed) -> Site:
    return bare_site(bed, "eu-west", Path("/opt/kubernetes"))
