"""Which regions may continue a service's streams, as the agent wrote it last; and which of them is asked next."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast_gateway.render.streams import STREAMS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """How the streams of one service are kept. Times in seconds."""

    regions: tuple[str, ...]
    """In the order in which they are asked."""
    max_resumes: int
    progress_timeout: float
    """A stream to which no token is added for this long is continued elsewhere."""


class Services:
    """The agent's file, read anew whenever another one was moved over it; the last good one stays."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / STREAMS
        self._seen: tuple[int, int] | None = None
        self._services: dict[str, Service] = {}

    def get(self, key: str) -> Service | None:
        """A service by `namespace/name`; None if the agent has not told of it."""
        self._follow()
        return self._services.get(key)

    def _follow(self) -> None:
        try:
            state = self._path.stat()
            seen = (state.st_ino, state.st_mtime_ns)
            if seen != self._seen:
                self._services = read(json.loads(self._path.read_text()))
                self._seen = seen
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("%s cannot be read, the last good version stays: %s", self._path, error)


def read(document: dict[str, Any]) -> dict[str, Service]:
    """The file's content. Raises ValueError, TypeError, KeyError or AttributeError."""
    return {
        key: Service(tuple(each["regions"]), int(each["maxResumes"]), float(each["progressTimeoutSeconds"]))
        for key, each in document["services"].items()
    }


def next_region(order: Sequence[str], failed: Sequence[str]) -> str | None:
    """The first region that has not failed; if all have, the one that failed longest ago. None: there is none.

    `failed` holds the regions that failed, the latest last, a region as often as it did.
    """

    def turn(region: str) -> int:
        return max((at + 1 for at, name in enumerate(failed) if name == region), default=0)

    return min(order, key=turn, default=None)
