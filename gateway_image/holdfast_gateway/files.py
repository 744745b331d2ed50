"""Writes Envoy's files: each atomically, only when its content changes, and in the order given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from holdfast_gateway.options import Options
from holdfast_gateway.render.files import ENDPOINTS_PREFIX, LISTENERS, PRIVATE, Files, start_files


class _Dumper(yaml.CSafeDumper):
    """Writes repeated values out instead of as YAML anchors, and long texts on one line."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def to_yaml(document: Mapping[str, Any]) -> str:
    """The text of one file."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10_000)


def replace(path: Path, text: str, *, private: bool = False) -> bool:
    """Moves a complete new file over the old one unless they are equal; returns whether. Raises OSError.

    A private file can be read by its owner alone, from its first byte on.
    """
    if path.exists() and path.read_text() == text:
        return False
    # The temporary name is constant: what a crash leaves behind is overwritten next time.
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    return True


def write(directory: Path, files: Files) -> list[str]:
    """Writes what changed, then removes endpoint files that no cluster reads now. Returns changed names."""
    changed = [
        name
        for name, document in files.items()
        if replace(directory / name, to_yaml(document), private=name in PRIVATE)
    ]
    for stale in sorted(directory.glob(f"{ENDPOINTS_PREFIX}*.yaml")):
        if stale.name not in files:
            stale.unlink()
            changed.append(stale.name)
    return changed


def initialise(directory: Path, options: Options) -> None:
    """Makes a directory from which Envoy can start. Keeps the last good configuration if there is one."""
    directory.mkdir(parents=True, exist_ok=True)
    if options.ledger:
        Path(options.ledger).mkdir(parents=True, exist_ok=True)  # without it Envoy refuses its client port
    has_configuration = (directory / LISTENERS).exists()
    for name, document in start_files(options, str(directory)).items():
        if name not in KEPT or not has_configuration:
            replace(directory / name, to_yaml(document))


KEPT = frozenset(start for start in ("cds.yaml", LISTENERS))
"""Files that hold the last good configuration once the agent has written them."""
