"""Where the testbed keeps things on this machine, by the XDG rules.

State (what runs, logs, cluster data) and cache (Kubernetes' binaries, images) are apart: the cache may be deleted at
any time, the state only by `down`. Sockets live under /run because a socket's path is limited to 107 bytes.
"""

from __future__ import annotations

import os
from pathlib import Path

RUN_ROOT = Path("/run/holdfast/testbed")


def state_root() -> Path:
    """Folder that holds one folder per testbed."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "holdfast" / "testbed"


def cache_root() -> Path:
    """Folder for what can be built again."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "holdfast"
