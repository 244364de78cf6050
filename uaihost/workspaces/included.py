"""`.worktreeinclude`: files of the owner's checkout that git does not keep and a task needs, like `.env`.

What is copied is neither tracked nor unknown to git there: it is ignored, and the patterns in the checkout's
`.worktreeinclude` (in .gitignore's language) name it. Nothing is written in the checkout, not even its index,
and its configuration is not used; git looks at it with a repository of ours. No symbolic link is followed on
either side.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from uaihost.blocking import Blocking
from uaihost.workspaces.git_folder import Owner
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.untrusted import folder, is_plain, read_file

NAME = ".worktreeinclude"

# Bytes of the patterns, of an index of some 500,000 files, of one file that is copied and of all of them.
_PATTERNS = 64 << 10
_INDEX = 128 << 20
LARGEST = 32 << 20
LARGEST_ALL = 128 << 20
MOST = 1000
# Seconds for walking the owner's checkout.
_WALK = 60.0

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SPECIAL = re.compile(rb"([\\*?\[\]!# ])")
_GITDIR = b"gitdir: "


@attrs.define
class _Copied:
    """What became of the files that are named."""

    names: list[bytes] = attrs.field(factory=list)
    left: list[bytes] = attrs.field(factory=list)
    size: int = 0


async def include(
    git: Git, blocking: Blocking, trash: Trash, checkout: Path, top: Path, owner: Owner
) -> list[str]:
    """Copy the files that `.worktreeinclude` of `checkout` names into the fresh work copy `top`.

    Returns lines for people; none when there is no such file.

    Raises:
        GitFailed, OSError: they cannot be copied.
    """
    place = top.parent / "included.git"
    if not await blocking.call(_prepare, checkout, place):
        return []
    try:
        names = await _named(git, checkout, place)
        copied = await blocking.call(_copy_all, checkout, top, names, owner)
    finally:
        await blocking.call(trash.remove, place)
    notes = []
    if copied.names:
        notes.append(f"Copied from the checkout on this host ({NAME}): {_shown(copied.names)}")
    if copied.left:
        notes.append(f"Left out, too large, too many or no plain files ({NAME}): {_shown(copied.left)}")
    return notes


async def _named(git: Git, checkout: Path, place: Path) -> list[bytes]:
    """Files that are not tracked, that the patterns name and that git ignores."""
    index = place / "index"
    try:
        found = await _untracked(git, checkout, place)
    except GitFailed:
        # Its index is split or of another kind; then what the work copy has counts as tracked.
        index.unlink(missing_ok=True)
        found = await _untracked(git, checkout, place)
    if not found:
        return []
    # The one command that knows no literal paths: with ./ none of them looks like a pattern's magic.
    ignored = await git.run(
        "check-ignore", "-z", "--stdin", git_dir=place, work_tree=checkout, cwd=checkout, index=index,
        stdin=b"".join(b"./" + name + b"\0" for name in found), timeout=_WALK, fine=(0, 1),
        extra={"GIT_LITERAL_PATHSPECS": "0"},
    )  # fmt: skip
    return [name.removeprefix(b"./") for name in ignored.out.split(b"\0") if name]


async def _untracked(git: Git, checkout: Path, place: Path) -> list[bytes]:
    listed = await git.run(
        "ls-files", "--others", "--ignored", f"--exclude-from={place / 'patterns'}", "-z",
        git_dir=place, work_tree=checkout, cwd=checkout, index=place / "index", timeout=_WALK,
    )  # fmt: skip
    return [name for name in listed.out.split(b"\0") if name and is_plain(name)]


def _prepare(checkout: Path, place: Path) -> bool:
    """Make a repository of ours that sees the checkout as its own does; False when nothing is asked for."""
    try:
        with folder(checkout) as top:
            patterns = read_file(NAME, top, _PATTERNS)
            if not patterns:
                return False
            git_dir = _git_dir(checkout, read_file(".git", top, 4096))
    except OSError:
        return False
    if git_dir is None:
        return False
    for name in ("objects", "refs", "info"):
        (place / name).mkdir(mode=0o700, parents=True)
    (place / "HEAD").write_text("ref: refs/heads/main\n", encoding="ascii")
    (place / "patterns").write_bytes(patterns)
    for name, source, largest in (
        ("index", git_dir, _INDEX),
        ("info/exclude", _common(git_dir) / "info", _PATTERNS),
    ):
        try:
            with folder(source) as own:
                content = read_file(name.rpartition("/")[2], own, largest)
        except OSError:
            continue
        if content is not None:
            (place / name).write_bytes(content)
    return True


def _git_dir(checkout: Path, link: bytes | None) -> Path | None:
    """The git directory of a checkout: its `.git`, or where that leads in a linked worktree."""
    if link is not None and link.startswith(_GITDIR):
        return checkout / os.fsdecode(link.removeprefix(_GITDIR).strip())
    found = checkout / ".git"
    return found if found.is_dir() and not found.is_symlink() else None


def _common(git_dir: Path) -> Path:
    try:
        with folder(git_dir) as own:
            text = read_file("commondir", own, 4096)
    except OSError:
        text = None
    return git_dir if text is None else git_dir / os.fsdecode(text.strip())


def _copy_all(checkout: Path, top: Path, names: Sequence[bytes], owner: Owner) -> _Copied:
    copied = _Copied()
    with folder(checkout) as source, folder(top) as target:
        for name in names:
            # A line end in a name cannot be kept from git below.
            if len(copied.names) >= MOST or b"\n" in name:
                copied.left.append(name)
                continue
            try:
                size = _copy_one(source, target, name, LARGEST_ALL - copied.size, owner)
            except FileExistsError:
                continue
            except OSError:
                size = None
            if size is None:
                copied.left.append(name)
            else:
                copied.size += size
                copied.names.append(name)
        if copied.names:
            # They hold what must not be committed, whatever this branch's .gitignore says.
            with _below(target, [b".git", b"info"], owner) as info:
                exclude = os.open("exclude", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644, dir_fd=info)
                with os.fdopen(exclude, "wb") as file:
                    file.writelines(b"/" + _SPECIAL.sub(rb"\\\1", name) + b"\n" for name in copied.names)
                    _own(file.fileno(), owner)
    return copied


def _copy_one(source: int, target: int, name: bytes, room: int, owner: Owner) -> int | None:
    """Copy a plain file; its size, or None when it is none or too large."""
    parts = name.split(b"/")
    with _below(source, parts[:-1]) as parent:
        descriptor = os.open(parts[-1], _FILE, dir_fd=parent)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > min(room, LARGEST):
            return None
        content = file.read(LARGEST + 1)
    if len(content) > min(room, LARGEST):
        return None
    with _below(target, parts[:-1], owner) as parent:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        made = os.open(parts[-1], flags, stat.S_IMODE(found.st_mode) & 0o777, dir_fd=parent)
        with os.fdopen(made, "wb") as file:
            file.write(content)
            _own(file.fileno(), owner)
    return len(content)


@contextmanager
def _below(top: int, parts: Sequence[bytes], owner: Owner | None = None) -> Iterator[int]:
    """A descriptor of the folder below `top`; with an owner, folders that are missing are made."""
    current = os.dup(top)
    try:
        for part in parts:
            if owner is not None:
                try:
                    os.mkdir(part, dir_fd=current)
                except FileExistsError:
                    pass
                else:
                    made = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
                    _own(made, owner)
                    os.close(made)
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
            os.close(current)
            current = deeper
        yield current
    finally:
        os.close(current)


def _own(descriptor: int, owner: Owner) -> None:
    if os.geteuid() == 0:
        os.fchown(descriptor, owner.uid, owner.gid)


def _shown(names: Sequence[bytes]) -> str:
    shown = ", ".join(repr(name.decode("utf-8", "replace")[:80]) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
