"""The errors a user of the demo or the load can meet; the command line prints their message and nothing else."""

from __future__ import annotations

from pathlib import Path


class ChaosError(Exception):
    """Base of all errors of this package."""


class ServiceError(ChaosError):
    """A service could not be read, applied, or did not start to serve."""


class EdgeError(ChaosError):
    """The edge gateway did not come up or does not reach every region."""


class LoadError(ChaosError):
    """The load could not be generated as planned."""


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, indented, or a note that there is none."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return "  (no log was written)"
    return "\n".join("  " + line[:300] for line in text.splitlines()[-lines:]) or "  (the log is empty)"
