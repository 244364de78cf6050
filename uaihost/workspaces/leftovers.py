"""What a work copy holds beside what git keeps: ignored files, empty folders, repositories inside it.

Blocking, by descriptors and never through a symbolic link; the copy may change meanwhile.
"""

# Names here are bytes, and places are descriptors.
# ruff: noqa: PTH208

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

import attrs

from uaihost.workspaces.untrusted import descended, folder, is_plain, open_up, read_file

# Entries of one work copy that are looked at; of a larger one the rest is told as left out.
MOST_ENTRIES = 1_000_000
# Repositories inside a work copy whose history is kept.
MOST_INNER = 100
_DEEPEST = 200
# Levels of .git/modules that are looked through.
_MODULES_DEEP = 8

# What is kept of what git does not keep, in bytes and numbers: a file; a folder in which git keeps nothing,
# with all that is in it; everything.
LARGEST_FILE = 32 << 20
LARGEST_FOLDER = 64 << 20
MOST_IN_FOLDER = 2000
LARGEST_ALL = 256 << 20
MOST_FILES = 20_000


@attrs.frozen
class Inner:
    """A repository inside a work copy. path: of its files, None when there are none; git_dir: of the
    repository. Both relative to the copy."""

    path: bytes | None
    git_dir: bytes


@attrs.define
class Survey:
    """Everything below a folder but what is in `.git`.

    files: name to size, symbolic links included; empty: folders; odd: sockets, pipes and devices; closed:
    folders that may not be read. complete: whether all was looked at.
    """

    files: dict[bytes, int] = attrs.field(factory=dict)
    empty: list[bytes] = attrs.field(factory=list)
    odd: list[bytes] = attrs.field(factory=list)
    inner: list[Inner] = attrs.field(factory=list)
    closed: list[bytes] = attrs.field(factory=list)
    complete: bool = True


@attrs.frozen
class Chosen:
    """files: to be kept, name to size; folders: empty ones to be kept; left: what is left out, why, as the
    words of a note."""

    files: dict[bytes, int]
    folders: list[bytes]
    left: list[str]


def survey(copy: Path) -> Survey:
    """Look through the work copy `copy`."""
    found = Survey()
    with folder(copy) as top:
        _walk(top, b"", found, 0)
        known = {inner.git_dir for inner in found.inner}
        found.inner += [Inner(None, name) for name in _modules(top) if name not in known]
    # Outer ones before those in them.
    found.inner.sort(key=lambda inner: inner.path or inner.git_dir)
    return found


def choose(found: Survey, kept: Collection[bytes]) -> Chosen:
    """What of `found` is not among the names `kept` and small enough to be kept beside them."""
    loose = {name: size for name, size in found.files.items() if name not in kept}
    parents = {parent for name in kept for parent in _parents(name)}
    files: dict[bytes, int] = {}
    left = []
    passed: set[bytes] = set()
    total = 0
    for group, members in sorted(_grouped(loose, parents).items(), key=lambda one: sum(one[1].values())):
        size = sum(members.values())
        alone = members.keys() == {group}
        limit = LARGEST_FILE if alone else LARGEST_FOLDER
        if size > limit or (not alone and len(members) > MOST_IN_FOLDER):
            left.append(_told(group, members, "too large" if size > limit else "too many files"))
        elif total + size > LARGEST_ALL or len(files) + len(members) > MOST_FILES:
            left.append(_told(group, members, "no room beside the others"))
        else:
            files |= members
            total += size
            continue
        passed.add(group)
    if found.odd:
        shown = ", ".join(shown_name(name) for name in found.odd[:5])
        more = f" and {len(found.odd) - 5} more" if len(found.odd) > 5 else ""
        left.append(f"{shown}{more} (sockets, pipes or devices)")
    if not found.complete:
        left.append(f"whatever comes after {MOST_ENTRIES} files that git does not keep")
    folders = [name for name in found.empty if not passed.intersection(_parents(name))]
    return Chosen(files, folders[:MOST_FILES], left)


def shown_name(name: bytes) -> str:
    """A name for people, on one line."""
    text = name.decode("utf-8", "replace")
    return text if len(text) <= 80 and text.isprintable() else repr(text[:80])


def _walk(parent: int, prefix: bytes, found: Survey, depth: int) -> None:
    names = os.listdir(parent)
    if not names and prefix:
        found.empty.append(prefix[:-1])
    for text in names:
        name = os.fsencode(text)
        path = prefix + name
        try:
            what = os.stat(text, dir_fd=parent, follow_symlinks=False)
        except OSError:
            continue
        if name == b".git":
            _open_all(parent, text, path, what.st_mode, found, 0)
            if prefix:
                _note_inner(parent, prefix[:-1], what, found)
            continue
        if len(found.files) + len(found.empty) >= MOST_ENTRIES or depth > _DEEPEST:
            found.complete = False
            return
        if stat.S_ISDIR(what.st_mode):
            try:
                open_up(text, parent, what.st_mode)
                with folder(text, parent) as inner:
                    _walk(inner, path + b"/", found, depth + 1)
            except PermissionError:
                found.closed.append(path)
            except OSError:
                continue
        elif stat.S_ISREG(what.st_mode) or stat.S_ISLNK(what.st_mode):
            found.files[path] = what.st_size
        else:
            found.odd.append(path)


def _open_all(parent: int, name: str, path: bytes, mode: int, found: Survey, depth: int) -> None:
    """See to it that a repository can be read where its owner can give that right."""
    if os.geteuid() == 0 or depth > _DEEPEST:
        return
    try:
        open_up(name, parent, mode)
        if stat.S_ISDIR(mode):
            with folder(name, parent) as inner:
                for text in os.listdir(inner):
                    its = os.stat(text, dir_fd=inner, follow_symlinks=False).st_mode
                    if stat.S_ISDIR(its) or stat.S_ISREG(its):
                        _open_all(inner, text, path + b"/" + os.fsencode(text), its, found, depth + 1)
    except PermissionError:
        found.closed.append(path)
    except OSError:
        return  # It changed meanwhile.


def _note_inner(parent: int, path: bytes, what: os.stat_result, found: Survey) -> None:
    if len(found.inner) >= MOST_INNER:
        return
    if stat.S_ISDIR(what.st_mode):
        found.inner.append(Inner(path, path + b"/.git"))
    elif stat.S_ISREG(what.st_mode):
        text = read_file(".git", parent, 4096) or b""
        if text.startswith(b"gitdir: "):
            target = os.path.normpath(path + b"/" + text.removeprefix(b"gitdir: ").strip())
            # Only what lies in the copy itself: another place is nothing of the task's.
            if target.startswith(b".git/") and b".." not in target.split(b"/"):
                found.inner.append(Inner(path, target))


def _modules(top: int) -> list[bytes]:
    """Repositories below .git/modules."""
    found: list[bytes] = []

    def look(parent: int, prefix: bytes, depth: int) -> None:
        for text in os.listdir(parent) if depth < _MODULES_DEEP else []:
            path = prefix + os.fsencode(text)
            try:
                with folder(text, parent) as inner:
                    names = set(os.listdir(inner))
                    if {"HEAD", "objects"} <= names:
                        if len(found) < MOST_INNER:
                            found.append(path)
                        if "modules" in names:
                            with folder("modules", inner) as deeper:
                                look(deeper, path + b"/modules/", depth + 1)
                    else:
                        look(inner, path + b"/", depth + 1)
            except OSError:
                continue

    try:
        with descended(top, [".git", "modules"]) as modules:
            look(modules, b".git/modules/", 0)
    except OSError:
        pass
    return found


def _grouped(loose: dict[bytes, int], parents: set[bytes]) -> dict[bytes, dict[bytes, int]]:
    """By the topmost folder in which nothing is kept, or by the file itself."""
    groups: dict[bytes, dict[bytes, int]] = {}
    for name, size in loose.items():
        group = next((parent for parent in _parents(name) if parent not in parents), name)
        groups.setdefault(group, {})[name] = size
    return groups


def _parents(name: bytes) -> Iterator[bytes]:
    """The folders above, from the top."""
    place = name.find(b"/")
    while place > 0:
        yield name[:place]
        place = name.find(b"/", place + 1)


def _told(group: bytes, members: dict[bytes, int], why: str) -> str:
    size = sum(members.values()) / (1 << 20)
    what = "" if members.keys() == {group} else f"{len(members)} files, "
    return f"{shown_name(group)} ({what}{size:.0f} MiB, {why})"


def safe_to_unpack(name: bytes) -> bool:
    """Whether a file of that name may be written into a person's folder."""
    return is_plain(name) and posixpath.normpath(name) == name and not name.startswith(b"/")
