"""A view of a work copy's repository: a folder of ours with its objects as further hard links, and its refs
as text that was read and checked.

Nothing here runs git, and nothing of the repository's configuration is read. Blocking.
"""

# Places are descriptors.
# ruff: noqa: PTH208

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

import attrs

from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.branches import fault
from uaihost.workspaces.untrusted import FILE, descended, folder, link, passing_over, read_file

# Bytes: a loose ref is one line; packed refs and the list of stashes grow with their number.
_REF_FILE = 1024
_PACKED_REFS = 64 << 20
_STASH_LOG = 1 << 20
# Numbers above any honest work copy; beyond them an agent only wants to tire the host.
MAX_REFS = 10_000
MAX_NAMES = 300_000
MAX_STASHES = 100
MAX_OBJECTS = 500_000
MAX_PAST = 200
_MAX_DEPTH = 20
# Refs that are somebody else's, and the one that is read by itself.
_FOREIGN = {"remotes", "stash"}

# Where git remembers commits while something is under way (gitrepository-layout(5), git-rebase(1)).
PENDING = (
    "ORIG_HEAD",
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "REBASE_HEAD",
    "rebase-merge/orig-head",
    "rebase-merge/onto",
    "rebase-merge/stopped-sha",
    "rebase-apply/orig-head",
    "rebase-apply/original-commit",
)

_OID = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_PACK = re.compile(r"pack-[0-9a-f]{40,64}\.(?:pack|idx)\Z")
_FAN_OUT = re.compile(r"[0-9a-f]{2}\Z")
_LOOSE = re.compile(r"[0-9a-f]{38,62}\Z")


@attrs.frozen
class Refs:
    """What a work copy points at.

    branch: the branch that is checked out, which may have no commit yet; None when HEAD is detached.
    detached: the commit of a detached HEAD. heads: branch to commit. stashes: commits, newest first.
    tags: name to object; others: refs of further kinds, without `refs/`, and what worktrees have checked out.
    past: what HEAD was on, newest first; pending: what an interrupted merge, rebase or
    the like remembers, by the name of its file. All of these only where all is taken.
    """

    branch: str | None
    detached: str | None
    heads: dict[str, str]
    stashes: tuple[str, ...]
    tags: dict[str, str] = attrs.field(factory=dict)
    past: tuple[str, ...] = ()
    pending: dict[str, str] = attrs.field(factory=dict)
    others: dict[str, str] = attrs.field(factory=dict)

    @property
    def head(self) -> str | None:
        """The commit that is checked out."""
        return self.detached if self.branch is None else self.heads.get(self.branch)


def unreadable(why: str) -> HostError:
    """The error for a work copy whose `.git` is not what a clone has."""
    return HostError(ErrorCode.CONFLICT, f"the work copy's .git cannot be read: {why}")


def take_git(
    copy: Path, view: Path, git_dir: str = ".git", *, whole: bool = False, known: Refs | None = None
) -> Refs:
    """Read the refs of the work copy `copy` and link its objects and its index into `view`, a fresh folder.

    Neither its configuration nor anything that points elsewhere (alternates, a common directory) is used.

    git_dir: where its repository is, below `copy`. whole: also what only saving asks for. known: with these
    refs no objects are linked: who asks has them.

    Raises:
        HostError: `conflict`, its `.git` is not a plain one; the message says in what.
    """
    try:
        with folder(copy) as top, descended(top, git_dir.split("/")) as git:
            for name, parts in (("commondir", ()), ("alternates", ("objects", "info"))):
                if _exists(git, parts, name):
                    raise unreadable(f"it borrows from another repository ({'/'.join((*parts, name))})")
            refs = _refs(git, whole)
            if whole:
                refs = attrs.evolve(refs, past=_past(git), pending=_pending(git))
            if refs != known:
                _link_objects(git, view / "objects")
            with passing_over(), folder(view) as own:
                link("index", git, own)
            return refs
    except FileNotFoundError:
        raise unreadable("it is missing") from None
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise unreadable("it is not a plain folder") from None
        raise unreadable(os.strerror(error.errno or 0)) from None


def _exists(git: int, parts: tuple[str, ...], name: str) -> bool:
    try:
        with descended(git, parts) as parent:
            os.stat(name, dir_fd=parent, follow_symlinks=False)
            return True
    except FileNotFoundError:
        return False


def _refs(git: int, whole: bool) -> Refs:
    kinds: dict[str, dict[str, str]] = {"heads": {}, "tags": {}}
    others: dict[str, str] = {}
    stash = None
    # Loose refs first: one that is packed meanwhile is then found in the second place.
    with passing_over(), folder("refs", git) as refs:
        stash = _oid(read_file("stash", refs, _REF_FILE))
        for kind in {"heads", *(os.listdir(refs) if whole else ())} - _FOREIGN:
            _loose(kind, refs, "", kinds.setdefault(kind, {}), 0)
            if oid := _oid(read_file(kind, refs, _REF_FILE)):
                _put(others, kind, oid)
    for oid, name in _packed(git):
        kind, _, rest = name.removeprefix("refs/").partition("/")
        if name == "refs/stash":
            stash = stash or oid
        elif not rest and whole:
            _put(others, kind, oid)
        elif kind == "heads" or (whole and kind not in _FOREIGN):
            _put(kinds.setdefault(kind, {}), rest, oid)
    if len(kinds["heads"]) > MAX_REFS:
        raise unreadable(f"it has more than {MAX_REFS} branches")
    heads, tags = kinds.pop("heads"), kinds.pop("tags")
    for kind, found in kinds.items():
        for rest, oid in found.items():
            _put(others, f"{kind}/{rest}", oid)
    if whole:
        _worktrees(git, others)
    text = (read_file("HEAD", git, _REF_FILE) or b"").decode("utf-8", "replace").strip()
    branch = text.removeprefix("ref: refs/heads/") if text.startswith("ref: refs/heads/") else None
    if branch is not None and fault(branch):
        branch = None
    detached = text if _OID.match(text) else None
    return Refs(branch, detached, heads, _stashes(git, stash), tags, others=others)


def _packed(git: int) -> list[tuple[str, str]]:
    data = read_file("packed-refs", git, _PACKED_REFS)
    if data is None and _exists(git, (), "packed-refs"):
        raise unreadable("its packed-refs is no plain file, or larger than any honest one")
    found = (line.partition(" ") for line in (data or b"").decode("utf-8", "replace").split("\n"))
    return [(oid, name) for oid, _, name in found if _OID.match(oid) and name.startswith("refs/")]


def _worktrees(git: int, others: dict[str, str]) -> None:
    with passing_over(), folder("worktrees", git) as worktrees:
        for name in os.listdir(worktrees):
            with passing_over(), folder(name, worktrees) as worktree:
                if oid := _oid(read_file("HEAD", worktree, _REF_FILE)):
                    _put(others, f"worktrees/{name}", oid)


def _past(git: int) -> tuple[str, ...]:
    """The log of HEAD: `git reset --hard` leaves commits that nothing else names."""
    found: dict[str, None] = {}
    with passing_over(), folder("logs", git) as logs:
        for line in reversed((_last(logs, "HEAD") or b"").decode("utf-8", "replace").split("\n")):
            for oid in reversed(line.split(" ", 2)[:2]):
                if _OID.match(oid) and oid.strip("0") and len(found) < MAX_PAST:
                    found[oid] = None
    return tuple(found)


def _pending(git: int) -> dict[str, str]:
    found = {}
    for name in PENDING:
        *parts, last = name.split("/")
        with passing_over(), descended(git, parts) as parent:
            # A merge of several branches names each on its line; the others get a number.
            lines = (read_file(last, parent, _REF_FILE) or b"").decode("ascii", "replace").split("\n")
            for number, oid in enumerate(line for line in lines if _OID.match(line)):
                found[name if not number else f"{name}-{number + 1}"] = oid
    return found


def _last(parent: int, name: str) -> bytes | None:
    """The end of a plain file, which may be long."""
    descriptor = os.open(name, FILE, dir_fd=parent)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None
        file.seek(max(0, found.st_size - _STASH_LOG))
        return file.read(_STASH_LOG)


def _loose(name: str, parent: int, prefix: str, heads: dict[str, str], depth: int) -> None:
    with passing_over(), folder(name, parent) as directory:
        with os.scandir(directory) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for inner, is_folder in found:
            if not is_folder:
                if oid := _oid(read_file(inner, directory, _REF_FILE)):
                    _put(heads, prefix + inner, oid)
            elif depth < _MAX_DEPTH:
                _loose(inner, directory, f"{prefix}{inner}/", heads, depth + 1)


def _put(refs: dict[str, str], name: str, oid: str) -> None:
    if fault(name) is None:
        refs.setdefault(name, oid)
        if len(refs) > MAX_NAMES:
            raise unreadable(f"it has more than {MAX_NAMES} refs of one kind")


def _oid(data: bytes | None) -> str | None:
    text = (data or b"").decode("ascii", "replace").strip()
    return text if _OID.match(text) else None


def _stashes(git: int, newest: str | None) -> tuple[str, ...]:
    """The stashes below the newest are named only in the log of the ref."""
    if newest is None:
        return ()
    found = {newest: None}
    log = b""
    with passing_over(), descended(git, ("logs", "refs")) as logs:
        log = read_file("stash", logs, _STASH_LOG) or b""
    for line in reversed(log.decode("utf-8", "replace").split("\n")):
        words = line.split(" ", 2)
        if len(words) == 3 and _OID.match(words[1]) and len(found) < MAX_STASHES:
            found[words[1]] = None
    return tuple(found)


def _link_objects(git: int, target: Path) -> None:
    count = 0
    with folder("objects", git) as objects:
        names = os.listdir(objects)
        # Packs last: what a repack in between moved from loose files into a pack is then still found.
        for name in sorted(name for name in names if _FAN_OUT.match(name) or name == "pack"):
            fitting = _PACK if name == "pack" else _LOOSE
            with passing_over(), folder(name, objects) as source:
                inner = [found for found in os.listdir(source) if fitting.match(found)]
                count += len(inner)
                if count > MAX_OBJECTS:
                    raise unreadable(f"it has more than {MAX_OBJECTS} object files")
                (target / name).mkdir(parents=True, exist_ok=True)
                with folder(target / name) as own:
                    # An index is only of use beside its pack, so the pack is linked first.
                    for found in sorted(inner, reverse=True):
                        with passing_over():
                            link(found, source, own)
