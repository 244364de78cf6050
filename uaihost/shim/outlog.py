"""What an agent prints, kept in order under absolute offsets until it is acknowledged: files of bounded size.

In the folder lie `out.OFFSET` files, each named by the offset of its first byte (20 digits) and followed by
the next without a gap. Whole files before what is acknowledged are deleted, so that offsets never change and
what survives a kill is told by the names alone. Standard library only, Python 3.9 and later.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

# A file is followed by a new one at this size, bytes: what lies on the disk longer than needed.
SEGMENT = 8 << 20
# Bytes that may wait to be acknowledged; then the agent's pipe is left to fill, and the agent waits.
UNACKNOWLEDGED = 256 << 20
# The log's name before it was kept in several files.
OLD = "out.log"


class OutLog:
    """base: the offset of the first byte that is kept; end: the offset after the last."""

    def __init__(self, folder: Path, segment: int = SEGMENT, limit: int = UNACKNOWLEDGED) -> None:
        self._folder = folder
        self._segment = segment
        self._limit = limit
        with contextlib.suppress(FileNotFoundError):
            (folder / OLD).rename(self._path(0))
        # By the offset of its first byte: each file's descriptor, in order.
        self._files: dict[int, int] = {}
        for start in self._found():
            self._files[start] = os.open(self._path(start), os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW)
        if not self._files:
            self._add(0)
        self.base = min(self._files)
        self.end = self._last + os.fstat(self._files[self._last]).st_size
        self.acknowledged = self.base
        self._end_last_line()

    @property
    def full(self) -> bool:
        """Whether nothing more should be read until more is acknowledged."""
        return self.end - self.acknowledged >= self._limit

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self.end - self._last >= self._segment:
                self._add(self.end)
            written = os.write(self._files[self._last], view)
            view = view[written:]
            self.end += written

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from there, fewer than `size` at the end of a file; none: somebody has cut the log."""
        start = max(each for each in self._files if each <= offset)
        return os.pread(self._files[start], size, offset - start)

    def cut(self, offset: int) -> None:
        """Nothing is there from `offset` on, whoever took it away."""
        while self._last > offset:
            self._remove(self._last)
        os.ftruncate(self._files[self._last], max(0, offset - self._last))
        self.end = offset

    def acknowledge(self, offset: int) -> None:
        """Nobody asks for what lies before `offset` again."""
        self.acknowledged = max(self.acknowledged, min(offset, self.end))
        starts = sorted(self._files)
        while len(starts) > 1 and starts[1] <= self.acknowledged:
            self._remove(starts.pop(0))
        self.base = min(self._files)

    @property
    def _last(self) -> int:
        return max(self._files)

    def _found(self) -> list[int]:
        """The files that belong together: what lies before a gap was to be deleted."""
        starts = sorted(
            int(path.name[4:]) for path in self._folder.glob("out." + "[0-9]" * 20) if path.is_file()
        )
        found: list[int] = []
        for start in starts:
            if found and found[-1] + self._path(found[-1]).stat().st_size != start:
                found.clear()
            found.append(start)
        return found

    def _path(self, start: int) -> Path:
        return self._folder / f"out.{start:020}"

    def _add(self, start: int) -> None:
        self._files[start] = os.open(self._path(start), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def _remove(self, start: int) -> None:
        os.close(self._files.pop(start))
        with contextlib.suppress(FileNotFoundError):
            self._path(start).unlink()

    def _end_last_line(self) -> None:
        """An earlier process may have died within a line; the next one's first line must stand alone."""
        if self.end > self.base and self.read(self.end - 1, 1) != b"\n":
            self.append(b"\n")
