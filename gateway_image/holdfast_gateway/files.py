"""Writes Envoy's files: each atomically, only when its content changes, and in the order given."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from holdfast_gateway.options import Options
from holdfast_gateway.render.files import LISTENERS, PRIVATE, RESOURCES, Files, start_files

Stamp = tuple[int, int, int]


class _Dumper(yaml.CSafeDumper):
    """Writes repeated values out instead of as YAML anchors, and long texts on one line."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def to_yaml(document: Mapping[str, Any]) -> str:
    """The text of a document for people."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10_000)


def to_text(name: str, document: Mapping[str, Any]) -> str:
    """The text of one file, by the ending of its name.

    What grows with the services is JSON: it takes a thirtieth of the time to write, and Envoy a third to read.
    """
    return json.dumps(document) if name.endswith(".json") else to_yaml(document)


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


class Folder:
    """Envoy's files in one directory. One that is as it was when it was written last is looked at, but not read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: dict[str, tuple[str, Stamp]] = {}
        """File name → the text that it has got, and how the file looked then."""

    def write(self, texts: Mapping[str, str]) -> list[str]:
        """Writes what changed, then removes files of services that are gone. Returns changed names. Raises OSError."""
        with os.scandir(self._directory) as entries:
            ours = [entry for entry in entries if entry.name in texts or RESOURCES.fullmatch(entry.name)]
            present = {entry.name: stamp_of(entry.stat()) for entry in ours}
        changed = []
        for name, text in texts.items():
            seen = present.get(name)
            if seen is None or self._written.get(name) != (text, seen):
                path = self._directory / name
                if replace(path, text, private=name in PRIVATE):
                    changed.append(name)
                self._written[name] = text, stamp_of(path.stat())
        stale = sorted(name for name in present if RESOURCES.fullmatch(name) and name not in texts)
        for name in stale:
            (self._directory / name).unlink(missing_ok=True)
            self._written.pop(name, None)
        return [*changed, *stale]


def stamp_of(found: os.stat_result) -> Stamp:
    """What differs when a file was replaced or written to."""
    return found.st_ino, found.st_mtime_ns, found.st_size


def write(directory: Path, files: Files) -> list[str]:
    """Writes a directory once, as `Folder.write`."""
    return Folder(directory).write({name: to_text(name, document) for name, document in files.items()})


def initialise(directory: Path, options: Options) -> None:
    """Makes a directory from which Envoy can start. Keeps the last good configuration if there is one."""
    directory.mkdir(parents=True, exist_ok=True)
    if options.ledger:
        Path(options.ledger).mkdir(parents=True, exist_ok=True)  # without it Envoy refuses its client port
    has_configuration = (directory / LISTENERS).exists()
    for name, document in start_files(options, str(directory)).items():
        if name not in KEPT or not has_configuration:
            replace(directory / name, to_text(name, document))


KEPT = frozenset((LISTENERS,))
"""Files that hold the last good configuration once the agent has written them."""
