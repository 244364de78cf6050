"""What a task holds beside its work copies and is kept when it goes: the agents' sessions from its home, and
what lies in its folder of work copies without being one. Both go to saved/<task>/.task.tar.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces import archive
from uaihost.workspaces.beside import free_name, write_json
from uaihost.workspaces.leftovers import Survey, shown_name, survey
from uaihost.workspaces.repository_files import damaged
from uaihost.workspaces.saving import Saved

# Where the agents' programs keep their conversations, below the home folder.
SESSIONS = (b".claude/projects", b".codex/sessions")
# One keeps all of them in a database, below the home folder: the folder, and the files in it that are only
# worth something together. Beside them lies what it signs in with.
DATABASE = (b".local/share/opencode", (b"opencode.db", b"opencode.db-wal"))
# Bytes of sessions, newest first; of what is no work copy, beyond which a person has to look first.
SESSIONS_LIMIT = 128 << 20
UNKNOWN_LIMIT = 1 << 30

_NAME = ".task"


def keep(task: Path, saved: Path, task_id: str, known: Collection[str]) -> Saved | None:
    """Keep that of the task in the folder `task`; None when there is nothing. Blocking.

    known: the names of the work copies, which are kept by themselves.

    Raises:
        HostError: `too_large`; the task must not be removed.
        OSError: it cannot be written.
    """
    items, left = _sessions(task)
    items += _unknown(task, known)
    if not items:
        return None
    made = (task / "work").stat().st_ino if (task / "work").is_dir() else 0
    name = free_name(saved / task_id, _NAME, made)
    target = saved / task_id / f"{name}.tar"
    unread = archive.write(target, task, items)
    if unread:
        left.append(f"{len(unread)} files could not be read: {shown_name(unread[0])}")
    done = Saved("", "", "", None, "", "; ".join(left) or None, str(target), name, size=target.stat().st_size)
    description = {
        "version": 1,
        "task": task_id,
        "made": made,
        "slug": "",
        "name": name,
        "extra": str(target),
    }
    write_json(saved / task_id / f"{name}.json", description)
    return done


def _sessions(task: Path) -> tuple[list[archive.Item], list[str]]:
    """Newest first; what belongs together is kept together or not at all."""
    home = task / "home"
    found: list[tuple[float, int, list[bytes]]] = []
    for session in SESSIONS:
        for name, size in _files(home, session).files.items():
            path = b"home/" + session + b"/" + name
            found.append((_changed(task, path), size, [path]))
    place, names = DATABASE
    sizes = {name: size for name, size in _files(home, place).files.items() if name in names}
    if sizes:
        paths = [b"home/" + place + b"/" + name for name in sizes]
        found.append((max(_changed(task, path) for path in paths), sum(sizes.values()), paths))
    items, total, left = [], 0, 0
    for _, size, paths in sorted(found, reverse=True):
        if total + size > SESSIONS_LIMIT:
            left += 1
            continue
        total += size
        items += [archive.Item(path, path) for path in paths]
    return items, [f"{left} old sessions of agents were left out"] if left else []


def _changed(task: Path, path: bytes) -> float:
    try:
        return (task / path.decode("utf-8", "surrogateescape")).lstat().st_mtime
    except OSError:
        return 0.0


def _files(top: Path, below: bytes) -> Survey:
    """What lies in the folder `below` of `top`, reached through no link."""
    place = top
    for part in ["", *below.decode("ascii").split("/")]:
        place = place / part
        if place.is_symlink() or not place.is_dir():
            return Survey()
    try:
        return survey(place)
    except OSError:
        return Survey()


def _unknown(task: Path, known: Collection[str]) -> list[archive.Item]:
    work = task / "work"
    items: list[archive.Item] = []
    total = 0
    for entry in sorted(work.iterdir()) if work.is_dir() and not work.is_symlink() else []:
        if entry.name in known:
            continue
        path = b"work/" + _bytes(entry.name)
        if entry.is_symlink() or not entry.is_dir():
            items.append(archive.Item(path, path))
            continue
        found = survey(entry)
        # Where nothing is known of a folder its repositories are files like any others.
        git_dirs = [b".git", *(one.git_dir for one in found.inner)]
        names = [*found.files, *(name + b"/" for name in found.empty)]
        names += dict.fromkeys(damaged(entry, git_dirs))
        total += sum((entry / os.fsdecode(name)).lstat().st_size for name in names)
        if total > UNKNOWN_LIMIT or not found.complete or found.closed:
            raise HostError(
                ErrorCode.TOO_LARGE,
                f"{entry} is no work copy of this task and too large or closed; move it away "
                "and take the task down again",
            )
        items += [archive.Item(path + b"/" + name, path + b"/" + name) for name in names]
    return items


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
