"""Named pipes where git looks for rules: git opens these files without looking at what they are, and waits.

Blocking. No link is followed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from uaihost.workspaces.untrusted import descended, folder, passing_over

_RULES = {b".gitignore", b".gitattributes", b".gitmodules"}
# Folders above any honest work copy.
_FOLDERS = 200_000


def remove_pipes(tree: Path) -> int:
    """Remove what is named as rules are and is no plain file, link or folder, below the folder `tree`; how
    many there were. They hold nothing, so nothing is lost.
    """
    removed = 0
    with passing_over(), folder(tree) as top:
        waiting: list[tuple[bytes, ...]] = [()]
        for parts in waiting:
            with passing_over(), descended(top, parts) as here:
                with os.scandir(here) as entries:
                    found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
                for name, is_folder in ((os.fsencode(name), is_folder) for name, is_folder in found):
                    if is_folder and name != b".git" and len(waiting) < _FOLDERS:
                        waiting.append((*parts, name))
                    elif name in _RULES:
                        removed += _remove_if_pipe(name, here)
    return removed


def _remove_if_pipe(name: bytes, parent: int) -> bool:
    with passing_over():
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
            os.unlink(name, dir_fd=parent)
            return True
    return False
