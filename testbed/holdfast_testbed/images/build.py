"""Builds the project's images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast_testbed.progress import Progress


def build_images(
    images: Sequence[str] | None = None, *, source: Path | None = None, progress: Progress | None = None
) -> list[Path]:
    return []
