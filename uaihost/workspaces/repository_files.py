"""Files of a work copy's own repositories that are kept beside git: hooks, what an interrupted merge or
rebase remembers, and a whole repository that git cannot read. They are only ever put into a tar file.

Blocking, by descriptors and never through a symbolic link.
"""

# Places are descriptors.
# ruff: noqa: PTH208

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.empty_rules import is_hollow
from uaihost.workspaces.untrusted import descended, folder

# A reason to keep a repository's small files: something is under way in it, or somebody wrote hooks.
_TELLING = (
    "hooks",
    "rebase-merge",
    "rebase-apply",
    "sequencer",
    "MERGE_MSG",
    "MERGE_MODE",
    "SQUASH_MSG",
    "BISECT_LOG",
    "BISECT_START",
    "BISECT_NAMES",
)
# Kept with them.
_ALSO = ("config", "HEAD", "index", "info", "logs/HEAD")
# Bytes of one such file, of all of them, and their number.
_LARGEST = 16 << 20
_LARGEST_ALL = 64 << 20
_MOST = 5000
# Bytes of damaged repositories: beyond that a person has to look first.
DAMAGED = 4 << 30
_DEEPEST = 50


def remembered(copy: Path, git_dirs: Sequence[bytes], anyway: bool) -> list[bytes]:
    """The small files of each repository that are worth keeping, as paths below `copy`.

    anyway: also where nothing is under way.
    """
    found: dict[bytes, int] = {}
    with folder(copy) as top:
        for git_dir in git_dirs:
            telling = _below(top, git_dir, _TELLING)
            if telling or anyway:
                found |= telling | _below(top, git_dir, _ALSO)
    kept: list[bytes] = []
    total = 0
    for path, size in sorted(found.items(), key=lambda one: one[1]):
        if size <= _LARGEST and total + size <= _LARGEST_ALL and len(kept) < _MOST:
            kept.append(path)
            total += size
    return kept


def damaged(copy: Path, git_dirs: Sequence[bytes]) -> list[bytes]:
    """Every file of repositories that git cannot read; what is nearly all holes is passed over.

    Raises:
        HostError: `too_large`.
    """
    found: dict[bytes, int] = {}
    with folder(copy) as top:
        for git_dir in git_dirs:
            found |= _below(top, git_dir, None)
    if sum(found.values()) > DAMAGED:
        raise HostError(
            ErrorCode.TOO_LARGE,
            f"a repository in {copy} cannot be read and is too large to be kept as it is; repair it there, "
            "or move it away",
        )
    return list(found)


def _below(top: int, git_dir: bytes, names: Sequence[str] | None) -> dict[bytes, int]:
    """Plain files and links of the repository, by their paths; of `names` only, where given."""
    found: dict[bytes, int] = {}
    try:
        with descended(top, git_dir.split(b"/")) as git:
            for text in os.listdir(git) if names is None else names:
                *above, last = text.split("/")
                try:
                    with descended(git, above) as parent:
                        _collect(parent, last, git_dir + b"/" + os.fsencode(text), found, 0)
                except OSError:
                    continue
    except OSError:
        # Not a folder: then it is a file, a link or nothing.
        with descended(top, git_dir.split(b"/")[:-1]) as parent:
            _collect(parent, os.fsdecode(git_dir.split(b"/")[-1]), git_dir, found, 0)
    return found


def _collect(parent: int, name: str, path: bytes, found: dict[bytes, int], depth: int) -> None:
    try:
        what = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(what.st_mode):
            if depth < _DEEPEST:
                with folder(name, parent) as inner:
                    for text in os.listdir(inner):
                        _collect(inner, text, path + b"/" + os.fsencode(text), found, depth + 1)
        elif stat.S_ISREG(what.st_mode) and (name.endswith(".sample") or is_hollow(what)):
            return
        elif stat.S_ISREG(what.st_mode) or stat.S_ISLNK(what.st_mode):
            found[path] = what.st_size
    except OSError:
        return
