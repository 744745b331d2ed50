"""Remembers on disk which faults a region suffers, oldest first, for `status` and for healing."""

from __future__ import annotations

import json
from pathlib import Path

from .provider import Fault, FaultKind
from .state import write_atomically


def present(folder: Path) -> tuple[Fault, ...]:
    """The faults of the region that has this folder."""
    try:
        raw = json.loads(_record(folder).read_text())
    except FileNotFoundError:
        return ()
    return tuple(Fault(FaultKind(item["kind"]), item["delay_ms"]) for item in raw)


def add(folder: Path, fault: Fault) -> None:
    """Record one more fault; done before it is injected, so that healing knows of it however that ends.

    A fault of the same kind as one before takes its place, as it does in fact.
    """
    others = tuple(former for former in present(folder) if former.kind is not fault.kind)
    _write(folder, (*others, fault))


def clear(folder: Path) -> None:
    """Record that all faults are undone."""
    if present(folder):
        _write(folder, ())


def _write(folder: Path, faults: tuple[Fault, ...]) -> None:
    raw = [{"kind": str(fault.kind), "delay_ms": fault.delay_ms} for fault in faults]
    write_atomically(_record(folder), json.dumps(raw))


def _record(folder: Path) -> Path:
    return folder / "faults.json"
