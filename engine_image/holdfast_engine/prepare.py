"""Gets a model ready to be loaded, beside the event loop: fetches it, compares its digest, finds the file to load.

Runs in a thread of its own that the process does not wait for when it ends: whatever was fetched until then stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from holdfast_engine.integrity import is_left_out
from holdfast_engine.model_errors import ModelUnavailable
from holdfast_engine.sources import DEFAULT_CACHE, is_remote, local_path, obtain

logger = logging.getLogger(__name__)
TERMINATION_LOG = Path("/dev/termination-log")
"""Where the kubelet reads a container's last words."""


@dataclass(frozen=True)
class WantedModel:
    """`source` as in `holdfast_engine.sources`; `sha256` as in `holdfast_engine.integrity`, None: any content."""

    source: str
    sha256: str | None = None
    cache: Path = DEFAULT_CACHE


async def prepared(wanted: WantedModel) -> Path:
    """The GGUF file to load. Raises ModelCorrupt, ModelUnavailable."""
    return loadable(await obtained(wanted))


async def obtained(wanted: WantedModel) -> Path:
    """The model's file or directory, fetched and compared as wanted, while the event loop goes on.

    Raises ModelCorrupt, ModelUnavailable.
    """
    if wanted.sha256 is None and not is_remote(wanted.source):
        return local_path(wanted.source)
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Path] = loop.create_future()

    def tell(result: Path | None, error: BaseException | None) -> None:
        if outcome.cancelled():
            return
        if error is not None:
            outcome.set_exception(error)
        elif result is not None:
            outcome.set_result(result)

    def work() -> None:
        result, failure = None, None
        try:
            result = obtain(wanted.source, wanted.cache, wanted.sha256, logger.info)
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=work, name="prepare", daemon=True).start()
    return await outcome


def loadable(model: Path) -> Path:
    """The file to load: `model` itself, or the one GGUF file in it."""
    if not model.is_dir():
        return model
    found = [
        path
        for path in sorted(model.rglob("*.gguf"))
        if not any(is_left_out(part, top=False) for part in path.relative_to(model).parts)
    ]
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(model)) for path in found[:5]) or "none"
        raise ModelUnavailable(f"{model} must hold exactly one GGUF file to load; found: {names}")
    return found[0]


def leave_word(file: Path, message: str) -> None:
    """Write a termination message, where the kubelet made a file for it; else do nothing."""
    with contextlib.suppress(OSError):
        handle = os.open(file, os.O_WRONLY | os.O_TRUNC)
        with os.fdopen(handle, "w") as out:
            out.write(message + "\n")
