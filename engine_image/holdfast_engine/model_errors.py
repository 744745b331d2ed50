"""Why an engine has no model to load. Each kind has an exit code; its text is the container's last words.

These end the process; what a client is told about a request is in `holdfast_engine.errors`.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

_QUERY = re.compile(r"\?[^\s'\"<>)]+")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_RIGHTS = (errno.EACCES, errno.EPERM, errno.EROFS)
LONGEST_WORDS = 1500
"""Characters of an error's text that are kept: a termination message holds 4,096 bytes at most."""


class ModelError(Exception):
    """The model cannot be loaded; `str` gives the kind's name and a sentence."""

    exit_code = 1

    def __str__(self) -> str:
        return f"{type(self).__name__}: {super().__str__()}"


class ModelCorrupt(ModelError):
    """The content is another one than the digest asks for."""

    exit_code = 65

    def __init__(self, expected: str, found: str, where: str) -> None:
        super().__init__(
            f"expected {expected}, found {found} at {where}; put the right files there, or correct the sha256 if the "
            "model was meant to change (`holdfast-engine digest` prints it)"
        )
        self.expected, self.found = expected, found


class ModelUnavailable(ModelError):
    """It cannot be read, found or fetched, or there is no room for it."""

    exit_code = 66


class Interrupted(Exception):
    """A transfer broke off; going on later may help."""


def plain(error: BaseException) -> str:
    """An error's text on one line, without the queries of URLs: signed ones are credentials."""
    text = " ".join(_QUERY.sub("?…", str(error)).split())
    return f"{type(error).__name__}: {text[:LONGEST_WORDS]}" if text else type(error).__name__


def no_room(path: Path, needed: int, free: int) -> ModelUnavailable:
    return ModelUnavailable(
        f"{path} has {free} bytes free, {needed} more are needed ({needed / 2**30:.1f} GiB): give it a larger volume"
    )


def unwritable(path: Path, error: OSError, needed: int, free: int) -> ModelUnavailable:
    """The error for a write to `path` that the system refused; sizes in bytes."""
    if error.errno in _NO_ROOM:
        return no_room(path, needed, free)
    if error.errno in _NO_RIGHTS:
        return ModelUnavailable(
            f"{path} cannot be written ({error.strerror}): mount a volume there that the user may use"
        )
    return ModelUnavailable(f"{path} cannot be written: {plain(error)}")
