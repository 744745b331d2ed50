"""The errors a user of the testbed can meet, each one a sentence that says what to do.

One tree: the command line prints the message of any `TestbedError` and nothing else; everything outside this tree
is a defect and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path


class TestbedError(Exception):
    """Base of all errors of this package."""

    __test__ = False  # the name starts with "Test"; pytest must not collect it


class HostError(TestbedError):
    """This machine, user or disk cannot run the testbed."""


class BedConflictError(TestbedError):
    """What the testbed needs (name, address, link) is used by something else."""


class UnknownRegionError(TestbedError):
    """A region was named that the testbed does not have."""


class CommandError(TestbedError):
    """A command of the host failed."""

    def __init__(self, argv: list[str], output: str) -> None:
        shown = " ".join(argv[:6]) + (" …" if len(argv) > 6 else "")
        tail = "\n".join(output.strip().splitlines()[-8:])
        super().__init__(f"`{shown}` failed: {tail or 'no output'}")
        self.output = output


class ComponentError(TestbedError):
    """A long-running component did not come up; the message ends with the last lines of its log."""

    def __init__(self, component: str, region: str, log: Path, why: str) -> None:
        super().__init__(f"{component} of region {region} {why}; its log {log} ends with:\n{tail(log)}")
        self.component = component
        self.log = log


class BuildError(TestbedError):
    """Kubernetes or an image could not be built."""


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, or a note that there is none."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return "  (no log was written)"
    return "\n".join("  " + line[:300] for line in text.splitlines()[-lines:]) or "  (the log is empty)"
