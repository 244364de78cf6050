"""A tar file of what git cannot hold, written from a folder that an agent owns and unpacked for a person.

Names in it: `work/...`, files of the work copy; `git/...`, files of its repositories, which are never put
into force by unpacking. Blocking; no symbolic link is followed on either side.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from uaihost.paths import flush
from uaihost.workspaces.leftovers import safe_to_unpack, shown_name
from uaihost.workspaces.untrusted import descended, folder, open_up

WORK = b"work/"
GIT = b"git/"

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE = 1 << 20
# What there may be in the place of a file that is unpacked, or of a folder above it.
_IN_ITS_WAY = {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}


@attrs.frozen
class Item:
    """name: in the archive; path: below the folder that is read; a folder's name ends with a slash."""

    name: bytes
    path: bytes


def write(target: Path, top: Path, items: Iterable[Item]) -> list[bytes]:
    """Put `items` of the folder `top` into the file `target`, whole and on the disk or not at all.

    Returns the paths that could not be read; those that are gone meanwhile are not among them.

    Raises:
        OSError: it cannot be written.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = target.with_name(f"{target.name}.new")
    unread: list[bytes] = []
    with beside.open("wb") as file:
        with (
            tarfile.open(
                fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
            ) as tar,
            folder(top) as source,
        ):
            for item in items:
                try:
                    _add(tar, source, item)
                except FileNotFoundError:
                    continue
                except _Unreadable:
                    unread.append(item.path)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(target)
    flush(target.parent)
    flush(target.parent.parent)
    return unread


def unpack(archive: Path, target: Path, below: bytes = WORK) -> list[str]:
    """Unpack what lies below `below` into the folder `target`, over what is there; names left out.

    Raises:
        OSError: the disk is full, or the like.
    """
    left = []
    with (
        tarfile.open(archive, encoding="utf-8", errors="surrogateescape") as tar,
        folder(target) as top,
    ):
        for entry in tar:
            name = os.fsencode(entry.name)
            if not name.startswith(below):
                continue
            name = name.removeprefix(below)
            if not safe_to_unpack(name) or not _put(tar, entry, top, name):
                left.append(shown_name(name))
    return left


def names(archive: Path) -> Iterator[bytes]:
    """Everything in it."""
    with tarfile.open(archive, encoding="utf-8", errors="surrogateescape") as tar:
        for entry in tar:
            yield os.fsencode(entry.name)


class _Unreadable(Exception):
    """The agent took the host's right to read it away, or it is no plain file any more."""


def _add(tar: tarfile.TarFile, source: int, item: Item) -> None:
    entry = tarfile.TarInfo(os.fsdecode(item.name.rstrip(b"/")))
    parts = item.path.rstrip(b"/").split(b"/")
    try:
        with descended(source, parts[:-1]) as parent:
            found = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
            entry.mode = stat.S_IMODE(found.st_mode) & 0o777
            entry.mtime = int(found.st_mtime)
            if stat.S_ISLNK(found.st_mode):
                entry.type = tarfile.SYMTYPE
                entry.linkname = os.fsdecode(os.readlink(parts[-1], dir_fd=parent))
                tar.addfile(entry)
                return
            if stat.S_ISDIR(found.st_mode):
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
                return
            open_up(os.fsdecode(parts[-1]), parent, found.st_mode)
            descriptor = os.open(parts[-1], _FILE, dir_fd=parent)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _Unreadable from error
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(file.fileno())
        if not stat.S_ISREG(size.st_mode):
            raise _Unreadable
        entry.size = size.st_size
        tar.addfile(entry, _Exactly(file, entry.size))


class _Exactly(io.RawIOBase):
    """As many bytes as were announced, of a file that may shrink while it is read."""

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        super().__init__()
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        data += b"\0" * (wanted - len(data))
        self._left -= wanted
        return data


def _put(tar: tarfile.TarFile, entry: tarfile.TarInfo, top: int, name: bytes) -> bool:
    """Write one entry; False when something that is no folder stands in its way."""
    parts = name.split(b"/")
    try:
        with descended(top, parts[:-1], make=True) as parent:
            if entry.isdir():
                try:
                    os.mkdir(parts[-1], entry.mode | 0o700, dir_fd=parent)
                except FileExistsError:
                    pass
                return True
            try:
                os.unlink(parts[-1], dir_fd=parent)
            except FileNotFoundError:
                pass
            if entry.issym():
                os.symlink(os.fsencode(entry.linkname), parts[-1], dir_fd=parent)
                return True
            content = tar.extractfile(entry)
            if content is None:
                return False
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            made = os.open(parts[-1], flags, 0o600, dir_fd=parent)
            with os.fdopen(made, "wb") as file:
                while piece := content.read(_PIECE):
                    file.write(piece)
                os.fchmod(file.fileno(), entry.mode | stat.S_IRUSR)
            return True
    except OSError as error:
        if error.errno not in _IN_ITS_WAY:
            raise
        return False
