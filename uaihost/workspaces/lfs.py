"""Files that Git LFS keeps elsewhere: the host checks their pointers out and says so.

The filter is a program that the repository names, so it never runs here. A pointer is just what git has in
the commit, and stays unchanged for git inside, with git-lfs or without.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from uaihost.blocking import Blocking
from uaihost.workspaces.checkouts import FILE, PROGRAM, Checkouts, Item
from uaihost.workspaces.safe_git import Git

# The specification says less than 1024 bytes, beginning with this.
_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST = 1024
# Files of attributes that are read, and bytes of each.
_MOST = 500
_ATTRIBUTES = 256 << 10


class Pointers:
    """Finds pointers in a work copy."""

    def __init__(self, git: Git, checkouts: Checkouts, blocking: Blocking) -> None:
        self._git = git
        self._checkouts = checkouts
        self._blocking = blocking

    async def notes(self, top: Path, items: Sequence[Item]) -> list[str]:
        """A line for people when files of the fresh work copy `top` are pointers."""
        git_dir = top / ".git"
        files = [item for item in items if item.mode in (FILE, PROGRAM)]
        named = [item.oid for item in files if item.path.rpartition(b"/")[2] == b".gitattributes"]
        if not named:
            return []
        texts = await self._checkouts.blobs(git_dir, named[:_MOST], _ATTRIBUTES)
        if not any(b"filter=lfs" in text for text in texts):
            return []
        asked = await self._git.run(
            "check-attr", "--cached", "-z", "--stdin", "filter", git_dir=git_dir, work_tree=top,
            stdin=b"".join(item.path + b"\0" for item in files),
        )  # fmt: skip
        fields = asked.out.split(b"\0")
        filtered = [path for path, value in zip(fields[0::3], fields[2::3], strict=False) if value == b"lfs"]
        found = await self._blocking.call(_pointers, top, filtered)
        if not found:
            return []
        shown = ", ".join(repr(name.decode("utf-8", "replace")[:80]) for name in found[:3])
        rest = f" and {len(found) - 3} more" if len(found) > 3 else ""
        noun = "file is a pointer" if len(found) == 1 else "files are pointers"
        return [
            f"{len(found)} {noun} of Git LFS: {shown}{rest}. Their content is not fetched by the host; "
            "run `git lfs pull` in the work copy"
        ]


def _pointers(top: Path, names: Sequence[bytes]) -> list[bytes]:
    """Which of the files are pointers. Nobody but git has written below `top`."""
    found = []
    for name in names:
        path = b"%s/%s" % (os.fsencode(top), name)
        try:
            kind = os.lstat(path)
            if stat.S_ISREG(kind.st_mode) and kind.st_size < _LARGEST:
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                with os.fdopen(descriptor, "rb") as file:
                    if file.read(_LARGEST).startswith(_POINTER):
                        found.append(name)
        except OSError:
            continue
    return found
