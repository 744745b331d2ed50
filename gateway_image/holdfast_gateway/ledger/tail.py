"""Reads the lines of one writer, from file to file, while they are written."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast_gateway.ledger import segments
from holdfast_gateway.ledger.lines import LONGEST, split
from holdfast_gateway.ledger.record import Source
from holdfast_gateway.ledger.segments import HEAD_BYTES, Position


class Tail:
    """One writer's lines, each once, from `position` on; without one from the eldest file that there is."""

    def __init__(self, directory: Path, source: Source, position: Position | None = None) -> None:
        self._directory = directory
        self._source = source
        self._sought = position
        self._descriptor: int | None = None
        self._inode = 0
        self._offset = 0

    @property
    def position(self) -> Position | None:
        """Up to where its lines were given; None: nowhere yet."""
        if self._descriptor is None:
            return self._sought
        beginning = os.pread(self._descriptor, min(HEAD_BYTES, self._offset), 0)
        return Position(self._inode, self._offset, segments.head(beginning))

    @property
    def unread_bytes(self) -> int:
        """How much there is to read."""
        files = segments.listed(self._directory, self._source)
        inodes = [inode for _, inode in files]
        later = files[inodes.index(self._inode) :] if self._inode in inodes else files
        return max(0, sum(size(path) for path, _ in later) - (self._offset if self._inode in inodes else 0))

    def to_end(self) -> None:
        """Leaves out all that was written until now, but for a line that is not complete."""
        at_end = False
        while not at_end:
            _, at_end = self.read()

    def read(self) -> tuple[list[bytes], bool]:
        """The next lines, some of which may be empty, and whether these are all that there are now. Raises OSError."""
        if self._descriptor is None and not self._open():
            return [], True
        assert self._descriptor is not None
        finished = self._next() is not None or not self._there()  # first: what was written before then is read now
        data = os.pread(self._descriptor, LONGEST, self._offset)
        last = finished and len(data) < LONGEST
        lines, taken = split(data, last)
        self._offset += taken
        if last:
            self._move_on()
            return lines, False
        return lines, len(data) < LONGEST

    def is_done_with(self, inode: int) -> bool:
        """Whether all of a file was read, or left out."""
        inodes = [each for _, each in segments.listed(self._directory, self._source)]
        mine = self._inode if self._descriptor is not None else None
        return mine in inodes and inode in inodes and inodes.index(inode) < inodes.index(mine)

    def unread_lines(self, path: Path) -> int:
        """How many lines of a file were not given yet."""
        if self.is_done_with(path.stat().st_ino):
            return 0
        data = path.read_bytes()
        return data[self._offset if path.stat().st_ino == self._inode else 0 :].count(b"\n")

    def leave(self, path: Path) -> None:
        """Goes on behind a file, if it has come there."""
        if self._descriptor is not None and path.stat().st_ino == self._inode:
            self._move_on()

    def close(self) -> None:
        """Ends reading."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    def _open(self) -> bool:
        files = segments.listed(self._directory, self._source)
        sought, offset = self._sought, 0
        for path, inode in files:
            if sought is not None and inode == sought.inode and self._is_at(path, sought):
                files, offset = [(path, inode)], sought.offset
        if not files:
            return False
        self._use(files[0][0], offset)
        return True

    def _use(self, path: Path, offset: int) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._inode = os.fstat(self._descriptor).st_ino
        self._offset = offset

    @staticmethod
    def _is_at(path: Path, sought: Position) -> bool:
        with path.open("rb") as file:
            return segments.head(file.read(min(HEAD_BYTES, sought.offset))) == sought.head and size(path) >= (
                sought.offset
            )

    def _there(self) -> bool:
        return self._inode in [inode for _, inode in segments.listed(self._directory, self._source)]

    def _next(self) -> Path | None:
        """The file behind the one that is read; behind one that was taken away, the current one."""
        files = segments.listed(self._directory, self._source)
        inodes = [inode for _, inode in files]
        if self._inode not in inodes:
            now = segments.current(self._directory, self._source)
            return now if now.exists() else None
        behind = files[inodes.index(self._inode) + 1 :]
        return behind[0][0] if behind else None

    def _move_on(self) -> None:
        following = self._next()
        self.close()
        self._sought = None
        if following is not None:
            self._use(following, 0)


def size(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
