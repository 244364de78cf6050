"""Reading a folder that an agent may change at any moment: by descriptors, never through a symbolic link.

Nothing here runs git. What git is to see of a work copy is first made a part of the daemon's own folders, as
further hard links to the same content: no bytes are moved. Blocking: callers bring it to a thread.
"""

# Names here are bytes, and places are descriptors.
# ruff: noqa: PTH119

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import attrs

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# NONBLOCK: a named pipe must not hold the thread.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

# What can happen to a name between listing and reading it, or because of what it names.
_CHANGED = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.EINVAL,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ENXIO,
    errno.EACCES,
    errno.EPERM,
}


@contextmanager
def folder(path: Path | str, parent: int | None = None) -> Iterator[int]:
    """A descriptor of the folder `path`, which must not be a symbolic link.

    Raises:
        OSError: it is none.
    """
    descriptor = os.open(path, _DIRECTORY, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_up(name: str, parent: int, mode: int) -> None:
    """Take back the owner's right to read a folder or file of this `mode`, which the agent took from itself.

    Only where the owner is who runs this, who is not root: then the agent's user and the host's are the same.
    By a descriptor that no link can redirect (open(2), O_PATH).
    """
    wanted = 0o500 if stat.S_ISDIR(mode) else 0o400
    if mode & wanted == wanted or os.geteuid() == 0 or not hasattr(os, "O_PATH"):
        return
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if stat.S_IFMT(os.fstat(descriptor).st_mode) == stat.S_IFMT(mode):
            Path(f"/proc/self/fd/{descriptor}").chmod(stat.S_IMODE(mode) | wanted)
    finally:
        os.close(descriptor)


def read_file(name: str, parent: int, limit: int) -> bytes | None:
    """The content of a plain file of at most `limit` bytes; None when it is missing or anything else."""
    try:
        descriptor = os.open(name, FILE, dir_fd=parent)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            return None
        with os.fdopen(os.dup(descriptor), "rb") as file:
            data = file.read(limit + 1)
        return data if len(data) <= limit else None
    finally:
        os.close(descriptor)


@attrs.frozen
class Staged:
    """names: what the stage holds; large: the files that were left out for their size."""

    names: list[bytes] = attrs.field(factory=list)
    large: list[bytes] = attrs.field(factory=list)


def stage_files(copy: Path, names: Iterable[bytes], stage: Path, largest: int | None = None) -> Staged:
    """Make `stage` hold the files and symbolic links `names` of `copy`, at the same places.

    Files are linked, not copied. What is missing, is something else, or lies behind a symbolic link is left
    out, so that nothing from outside `copy` can come in, even while it is being changed.

    largest: bytes; None takes files of any size.

    Raises:
        OSError: the host's fault, like a full disk.
    """
    staged = Staged()
    with folder(copy) as top, folder(stage) as bottom:
        plain = sorted(filter(is_plain, names), key=os.path.split)
        for directory, group in groupby(plain, key=os.path.dirname):
            parts = directory.split(b"/") if directory else []
            # The stage may hold links that were staged: its folders too are entered without following any.
            with (
                passing_over(),
                descended(top, parts) as source,
                descended(bottom, parts, make=True) as target,
            ):
                for path in group:
                    with passing_over():
                        fits = _stage_one(os.path.basename(path), source, target, largest)
                        (staged.names if fits else staged.large).append(path)
    return staged


def is_plain(name: bytes) -> bool:
    """Whether `name` leads down only, and into no `.git`: an index that an agent wrote can name anything."""
    return not any(part in (b"", b".", b"..") or part.lower() == b".git" for part in name.split(b"/"))


def _stage_one(name: bytes, source: int, target: int, largest: int | None) -> bool:
    if stat.S_ISLNK(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        return True
    link(name, source, target)
    found = os.stat(name, dir_fd=target, follow_symlinks=False)
    if largest is not None and found.st_size > largest:
        os.unlink(name, dir_fd=target)
        return False
    if not found.st_mode & stat.S_IRUSR:
        os.chmod(name, stat.S_IMODE(found.st_mode) | stat.S_IRUSR, dir_fd=target)
    return True


@contextmanager
def passing_over() -> Iterator[None]:
    """What an agent can cause by changing the tree is passed over; the host's own faults are not."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CHANGED:
            raise


def link(name: str | bytes, source: int, target: int) -> None:
    """Link a plain file into `target`, a folder that only the daemon can change."""
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except PermissionError:
        # Linux refuses links to what belongs to others (fs.protected_hardlinks).
        _copy(name, source, target)
        return
    if not stat.S_ISREG(os.stat(name, dir_fd=target, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=target)
        raise OSError(errno.EINVAL, "not a plain file")


def _copy(name: str | bytes, source: int, target: int) -> None:
    descriptor = os.open(name, FILE, dir_fd=source)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file")
    mode = stat.S_IMODE(found.st_mode) | stat.S_IRUSR
    with os.fdopen(descriptor, "rb") as file:
        made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=target)
        with os.fdopen(made, "wb") as copy:
            while data := file.read(1 << 20):
                copy.write(data)


@contextmanager
def descended(top: int, parts: Iterable[bytes | str], *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder below `top`, entered step by step; with `make`, missing ones are made.

    Raises:
        OSError: a step is missing, or is no folder but perhaps a link to one.
    """
    current = os.dup(top)
    try:
        for part in parts:
            if make:
                try:
                    os.mkdir(part, dir_fd=current)
                except FileExistsError:
                    pass
            deeper = os.open(part, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = deeper
        yield current
    finally:
        os.close(current)
