"""What stands where git looks for rules and is none: named pipes, for which it waits, and files of holes.

git opens these files without looking at what they are, and takes them whole into memory. Blocking. No link is
followed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from uaihost.workspaces.untrusted import descended, folder, passing_over

_RULES = {b".gitignore", b".gitattributes", b".gitmodules"}
# Folders above any honest work copy.
_FOLDERS = 200_000
# Bytes above which a rule file is looked at for holes, and what it may hold beside them: git itself takes
# attributes of 100 MiB at most (gitattributes(5)).
LARGE, HELD = 100 << 20, 1 << 20


def remove_empty_rules(tree: Path) -> int:
    """Remove what is named as rules are and is a pipe or nearly all holes, below the folder `tree`; how many
    there were. They hold nothing, so nothing is lost.
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
                        removed += _remove_if_empty(name, here)
    return removed


def is_hollow(found: os.stat_result) -> bool:
    """Whether a large file is nearly all holes (stat(2), st_blocks)."""
    return found.st_size > LARGE and found.st_blocks * 512 <= HELD


def _remove_if_empty(name: bytes, parent: int) -> bool:
    with passing_over():
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        mode = found.st_mode
        hollow = stat.S_ISREG(mode) and is_hollow(found)
        if hollow or not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
            os.unlink(name, dir_fd=parent)
            return True
    return False
