"""Deleting folders that an agent filled: never through a symbolic link, however deep, read-only or not.

Blocking: callers bring it to a thread.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path, trash: Path) -> None:
    """Delete `path` and all that is in it; what is not there is no error.

    It is first moved into `trash`, a folder on the same file system, so that it is gone at once; what an
    earlier, interrupted deletion left there is deleted too.
    """
    trash.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        path.rename(trash / secrets.token_hex(8))
    except FileNotFoundError:
        pass
    empty(trash)


def empty(trash: Path) -> None:
    """Delete everything in `trash`, but not itself.

    Folders within folders are moved up before they are emptied: however deep a tree is, one descriptor and
    no recursion is enough.
    """
    top = os.open(trash, _DIRECTORY)
    try:
        while names := os.listdir(top):  # noqa: PTH208 (a descriptor)
            for name in names:
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
