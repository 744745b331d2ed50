"""A region's copy of a service, and which of two copies is the later edit.

Nobody hands out numbers and no clock is asked: a copy's number is that of the edit it was last brought to, plus the
edits that its own API server has counted since (`metadata.generation`). An edit therefore gets the next number by
the write that makes it, and applying one manifest in every region gives every copy the same number without a write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from holdfast.api.names import STAMP_ANNOTATION
from holdfast.api.schema import Schema
from holdfast.domain.observation import Manifest, Version
from holdfast.domain.revision import digest

HISTORY = 10
"""Earlier contents that a stamp remembers, to tell an outdated copy from an edit that is lost."""


class Stamp(Schema):
    """What the replication that last wrote a copy knew of it."""

    number: int
    """Number of the edit that it brought."""
    generation: int
    """The copy's `metadata.generation` after it."""
    digest: str
    """The edit's content, as in the region where it was made."""
    origin: str
    """The region where it was made."""
    history: tuple[str, ...] = ()
    """Contents that came before it, the latest last."""
    incarnation: int = 0
    """How often the service had been deleted and made again."""


@dataclass(frozen=True)
class Copy:
    """One region's copy of a service."""

    region: str
    uid: str
    version: Version
    origin: str
    """The region where its latest edit was made."""
    history: tuple[str, ...]
    """Contents that it had before, the latest last."""
    edited_here: bool
    """Whether its latest edit was made in its own region."""
    spec: Mapping[str, Any]
    generation: int
    resource_version: str = ""
    deleting: bool = False
    stamped_ahead: bool = False
    """Whether its stamp is of a later generation than it has, as after a restore: its next edits would not count."""


def read_copy(region: str, manifest: Manifest, known_before: str = "") -> Copy:
    """The copy that a manifest is; `known_before` is the content that a majority held, where the region knows it."""
    meta = manifest["metadata"]
    stamp = read_stamp(manifest)
    content = digest(manifest["spec"])
    generation = int(meta.get("generation", 1))
    if stamp and generation <= stamp.generation:
        version = Version(stamp.incarnation, stamp.number, stamp.digest)
        origin, history, here = stamp.origin, stamp.history, stamp.origin == region
    else:
        number = stamp.number + generation - stamp.generation if stamp else generation
        before = (*stamp.history, stamp.digest) if stamp else ()
        if known_before and known_before not in (*before, content):
            before = (*before, known_before)
        version = Version(stamp.incarnation if stamp else 0, number, content)
        origin, history, here = region, before[-HISTORY:], True
    return Copy(
        region=region,
        uid=meta.get("uid", ""),
        version=version,
        origin=origin,
        history=history,
        edited_here=here,
        spec=manifest["spec"],
        generation=generation,
        resource_version=meta.get("resourceVersion", ""),
        deleting="deletionTimestamp" in meta,
        stamped_ahead=stamp is not None and generation < stamp.generation,
    )


def read_stamp(manifest: Manifest) -> Stamp | None:
    """The stamp of a copy; one that cannot be read counts as none."""
    text = manifest["metadata"].get("annotations", {}).get(STAMP_ANNOTATION)
    if not text:
        return None
    try:
        return Stamp.model_validate_json(text)
    except ValidationError:
        return None


def stamp_for(source: Copy, generation: int, before: Copy | None = None) -> Stamp:
    """The stamp of the copy `before` when it is brought to `source`, and its generation will then be this."""
    return Stamp(
        incarnation=source.version.incarnation,
        number=source.version.number,
        generation=generation,
        digest=source.version.digest,
        origin=source.origin,
        history=joined(before, source) if before else source.history,
    )


def built_upon(edit: Copy, later: Copy) -> bool:
    """Whether the later edit was made by somebody who had the earlier one.

    An edit can bring back a content that the service had before: then it must be there once more.
    """
    content = edit.version.digest
    return (*later.history, later.version.digest).count(content) > edit.history.count(content)


def joined(before: Copy, source: Copy) -> tuple[str, ...]:
    """What came before `source`, as far as it is known there or to the copy that it replaces."""
    if built_upon(before, source):
        known = (*before.history, before.version.digest)
        for common in range(min(len(known), len(source.history)), 0, -1):
            if known[-common:] == source.history[:common]:
                return (*known, *source.history[common:])[-HISTORY:]
    return source.history


__all__ = ["HISTORY", "Copy", "Stamp", "Version", "built_upon", "joined", "read_copy", "read_stamp", "stamp_for"]
