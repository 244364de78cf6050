"""Repositories inside a work copy that its commits or its index name: submodules, mostly.

Blocking; nothing here runs git, and no symbolic link is followed.
"""

# Names are bytes, and places are descriptors.
# ruff: noqa: PTH118

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import attrs

from uaihost.workspaces.untrusted import descended, folder, is_plain, passing_over, read_file

# Such repositories that are looked into, and how deep in one another.
MOST = 30
DEEPEST = 3
# Bytes of a `.git` that is a file.
_LINK = 4096
_GITLINK = b"160000 "


@attrs.frozen
class Link:
    """A repository where the copy names one. commit: that is checked out there; dirty: whether its files
    differ from that; tree: its files."""

    commit: str
    dirty: bool
    tree: str


def gitlinks(listed: bytes) -> list[bytes]:
    """The names of repositories in what `ls-tree -r -z` prints."""
    lines = (line.partition(b"\t") for line in listed.split(b"\0") if line.startswith(_GITLINK))
    return [name for _, _, name in lines]


def git_folders(copy: Path, inside: str, paths: Iterable[bytes]) -> dict[bytes, bytes]:
    """Where the repositories at `paths` are kept, relative to the work copy; one that is not there is left
    out, and so is one that is kept elsewhere: that is nothing of the task's.

    inside: what the paths are relative to, as seen from the copy.
    """
    above = os.fsencode(inside) + b"/" if inside else b""
    found: dict[bytes, bytes] = {}
    with folder(copy) as top:
        for path in sorted(filter(is_plain, paths))[:MOST]:
            whole = above + path
            with passing_over(), descended(top, whole.split(b"/")) as place:
                mode = os.stat(".git", dir_fd=place, follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    found[path] = whole + b"/.git"
                    continue
                text = read_file(".git", place, _LINK) or b""
                if text.startswith(b"gitdir: "):
                    target = os.path.normpath(os.path.join(whole, text.removeprefix(b"gitdir: ").strip()))
                    if target.startswith(b".git/") and b".." not in target.split(b"/"):
                        found[path] = target
    return found
