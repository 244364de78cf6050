"""Deleting folders that an agent filled: never through a symbolic link, however deep, read-only or not.

Blocking: callers bring it to a thread.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Trash:
    """Where folders go to be deleted.

    place: a folder of its own, on the file system of what is deleted. What an interrupted deletion of an
    earlier daemon left there is deleted with the first new one.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._first = True
        self._lock = threading.Lock()

    def remove(self, path: Path) -> None:
        """Delete `path` and all that is in it; what is not there is no error. It is gone at once."""
        with self._lock:
            self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._first:
                _empty(self._place)
                self._first = False
        if not os.path.lexists(path):
            return
        own = Path(tempfile.mkdtemp(dir=self._place))
        path.rename(own / "top")
        _empty(own)
        with suppress(FileNotFoundError):
            own.rmdir()


def _empty(trash: Path) -> None:
    """Delete everything in `trash`, but not itself.

    Folders within folders are moved up before they are emptied: however deep a tree is, one descriptor and
    no recursion is enough.
    """
    top = os.open(trash, _DIRECTORY)
    try:
        while names := os.listdir(top):  # noqa: PTH208 (a descriptor)
            for name in names:
                # Another process of this host may be emptying the same place.
                with suppress(FileNotFoundError):
                    if _is_folder(name, top):
                        _empty_one(name, top)
                    else:
                        os.unlink(name, dir_fd=top)
    finally:
        os.close(top)


def _empty_one(name: str, top: int) -> None:
    _open_up(name, top)
    folder = os.open(name, _DIRECTORY, dir_fd=top)
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for inner, is_folder in found:
            if is_folder:
                # A folder that may not be written cannot be moved: its ".." is part of it.
                _open_up(inner, folder)
                os.rename(inner, secrets.token_hex(8), src_dir_fd=folder, dst_dir_fd=top)
            else:
                os.unlink(inner, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _open_up(name: str, parent: int) -> None:
    mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=parent)


def _is_folder(name: str, parent: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
