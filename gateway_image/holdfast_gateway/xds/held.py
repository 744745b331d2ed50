"""The resources that a directory's `xds-*.json` files hold; of a file that cannot be read, those that it held last."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from holdfast_gateway.files import Stamp, stamp_of
from holdfast_gateway.render.files import RESOURCES
from holdfast_gateway.xds.messages import IN_ORDER, Resource, resource

log = logging.getLogger(__name__)

Place = tuple[str, str]
"""Kind and name of a resource."""

AT_ONCE = 100
"""Files that are read before others get a turn."""


class Held:
    """Follows the files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stamps: dict[str, Stamp] = {}
        self._files: dict[str, dict[Place, tuple[bytes, Resource]]] = {}
        """File → what it holds, each with a digest of its JSON form: those forms take ten times the memory."""
        self._owners: dict[Place, dict[str, Resource]] = {}
        """What several files hold for a moment counts as the latest has it: it is on its way from one to the other."""
        self.resources: dict[str, dict[str, Resource]] = {kind: {} for kind in IN_ORDER}
        """Kind → name → resource."""

    def refresh(self) -> Iterator[bool]:
        """Reads what changed, some files at a time; each turn tells whether anything did. Raises OSError."""
        present = self._present()
        changed = [name for name, stamp in present.items() if self._stamps.get(name) != stamp]
        # First what came and changed: what moved from one file to another is never gone.
        for start in range(0, len(changed), AT_ONCE):
            some = changed[start : start + AT_ONCE]
            differs = [self._read(name, present[name]) for name in some]
            yield any(differs)
        gone = [name for name in self._stamps if name not in present]
        if gone:
            for name in gone:
                del self._stamps[name]
                self._take(name, {})
                del self._files[name]
            yield True

    def _present(self) -> dict[str, Stamp]:
        found = {}
        with os.scandir(self._directory) as entries:
            for each in entries:
                if RESOURCES.fullmatch(each.name):
                    with suppress(FileNotFoundError):  # gone since
                        found[each.name] = stamp_of(each.stat())
        return found

    def _read(self, name: str, stamp: Stamp) -> bool:
        self._stamps[name] = stamp
        before = self._files.get(name, {})
        found: dict[Place, tuple[bytes, Resource]] = {}
        try:
            for document in json.loads((self._directory / name).read_text())["resources"]:
                place = (str(document.get("@type")), str(document.get("cluster_name") or document.get("name")))
                digest = blake2b(json.dumps(document).encode()).digest()
                known = before.get(place)
                found[place] = known if known and known[0] == digest else (digest, resource(document))
        except FileNotFoundError:
            del self._stamps[name]  # gone since: seen with the next look
            return False
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, OSError):
                del self._stamps[name]  # tried again, whether it changes or not
            log.error("%s cannot be read, what it held last stays: %s", self._directory / name, error)
            return False
        return self._take(name, found)

    def _take(self, name: str, found: Mapping[Place, tuple[bytes, Resource]]) -> bool:
        """A file's new content. Returns whether it differs."""
        before = self._files.get(name, {})
        self._files[name] = dict(found)
        changed = False
        for place, (_, each) in found.items():
            if place not in before or before[place][1] is not each:
                owners = self._owners.setdefault(place, {})
                owners.pop(name, None)
                owners[name] = each
                self.resources[place[0]][place[1]] = each
                changed = True
        for kind, thing in before.keys() - found.keys():
            owners = self._owners[kind, thing]
            owners.pop(name, None)
            changed = True
            if owners:
                self.resources[kind][thing] = [*owners.values()][-1]
            else:
                del self._owners[kind, thing], self.resources[kind][thing]
        return changed
