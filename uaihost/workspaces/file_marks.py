"""Reading the changed files of a work copy, and knowing again those that did not change since.

A file is known by what its status says, to the nanosecond, and by the kernel's own time of the last change,
which no program can set. That says nothing about a file that changed moments before it was read: the next
change could bear the same time. Such a file gets no mark and is read again. Blocking.
"""

# Names are bytes, and places are descriptors.
# ruff: noqa: PTH119

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path

import attrs

from uaihost.workspaces.untrusted import FILE, descended, folder, is_plain, passing_over

FILE_MODE, PROGRAM_MODE, LINK_MODE = b"100644", b"100755", b"120000"

# Nanoseconds: two changes this close together can bear the same time, whatever the file system's clock.
YOUNG = 2_000_000_000
# Bytes of content that are held at once; files beyond are left to who can do without holding them.
ROOM = 64 << 20


@attrs.frozen
class Mark:
    """What a file's status says of its content. Times in nanoseconds since the epoch."""

    inode: int
    mode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, found: os.stat_result) -> Mark:
        return cls(found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def settled(self, now: int) -> bool:
        """Whether a change after `now` is bound to show in the mark."""
        return self.changed < now - YOUNG


@attrs.frozen
class Content:
    """A file's or link's content. mode: as git has it; mark: None when it cannot be known again."""

    mode: bytes
    data: bytes
    mark: Mark | None


@attrs.frozen
class Found:
    """What became of the names that were asked for; one that is in none of these is not there.

    same: they have the mark that was known; read: content of the others; large: bytes of those that are
    larger than what is read; left: files that must be read in another way.
    """

    same: set[bytes] = attrs.field(factory=set)
    read: dict[bytes, Content] = attrs.field(factory=dict)
    large: dict[bytes, int] = attrs.field(factory=dict)
    left: list[bytes] = attrs.field(factory=list)

    @property
    def here(self) -> set[bytes]:
        """All that are there."""
        return self.same.union(self.read, self.large, self.left)


def read_files(
    copy: Path, names: Iterable[bytes], known: Mapping[bytes, Mark], largest: int | None, now: int
) -> Found:
    """The files `names` of the work copy, unless they have their known mark still.

    No symbolic link is followed, so that nothing from outside `copy` can come in. largest: bytes; None reads
    files of any size. now: `moment`, from before.

    Raises:
        OSError: the host's fault.
    """
    found = Found()
    room = ROOM
    with folder(copy) as top:
        plain = sorted(filter(is_plain, names), key=os.path.split)
        for directory, group in groupby(plain, key=os.path.dirname):
            with passing_over(), descended(top, directory.split(b"/") if directory else []) as source:
                for path in group:
                    with passing_over():
                        room -= _one(path, source, known.get(path), largest, room, now, found)
    return found


def _one(
    path: bytes, source: int, known: Mark | None, largest: int | None, room: int, now: int, found: Found
) -> int:
    """Bytes that are held for it."""
    name = os.path.basename(path)
    before = Mark.of(os.stat(name, dir_fd=source, follow_symlinks=False))
    if before == known:
        found.same.add(path)
        return 0
    if stat.S_ISLNK(before.mode):
        data = os.readlink(name, dir_fd=source)
        mode = LINK_MODE
        after = Mark.of(os.stat(name, dir_fd=source, follow_symlinks=False))
    elif not stat.S_ISREG(before.mode):
        return 0
    elif largest is not None and before.size > largest:
        found.large[path] = before.size
        return 0
    elif before.size > room:
        found.left.append(path)
        return 0
    else:
        try:
            descriptor = os.open(name, FILE, dir_fd=source)
        except PermissionError:
            found.left.append(path)
            return 0
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            before = Mark.of(os.fstat(descriptor))
            if not stat.S_ISREG(before.mode):
                return 0
            data = _read(file.fileno(), before.size)
            after = Mark.of(os.fstat(descriptor))
        mode = PROGRAM_MODE if before.mode & stat.S_IXUSR else FILE_MODE
    whole = before == after and len(data) == before.size
    found.read[path] = Content(mode, data, before if whole and before.settled(now) else None)
    return len(data)


def _read(descriptor: int, size: int) -> bytes:
    """At most `size` bytes: what is appended meanwhile belongs to the next look."""
    parts = []
    while size > 0 and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def young(copy: Path, names: Iterable[bytes], since: int) -> set[bytes]:
    """Those of `names` that changed after `since`, or bear a later time."""
    found = set()
    top = os.fsencode(copy) + b"/"
    for name in names:
        try:
            status = os.lstat(top + name)
        except OSError:
            continue
        if status.st_ctime_ns > since or status.st_mtime_ns > since:
            found.add(name)
    return found


def moment(place: Path) -> int:
    """The time by which changes of files on the file system of the folder `place` are marked."""
    file = place / "moment"
    file.write_bytes(b"x")
    return file.stat().st_ctime_ns


def drift() -> float:
    """Seconds from when the machine started to when the clock began: smaller than before when somebody set
    the clock back."""
    return time.time() - time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
