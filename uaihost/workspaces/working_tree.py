"""The files of a work copy as a tree, recorded with a git directory and an index of ours.

git lists what differs from the commit that is checked out; those files are linked into a stage that the agent
cannot reach, and only there are they read.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.indexes import changed_bytes, entries
from uaihost.workspaces.places import Places
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.untrusted import stage_files

# Repositories inside a work copy that are recorded as plain folders; more are left out.
MAX_NESTED = 100

# Seconds for reading all changed files: enough for some GiB.
READ = 1800.0
# Seconds: a file that changed this shortly before it was looked at can change again within the same second.
_RACY = 2.0
# Everything that conversion asks of attributes (gitattributes(5)), set to what leaves content alone.
_BYTES = "* -text !eol !crlf !working-tree-encoding !ident !filter\n"


@attrs.frozen
class Recorded:
    """A working tree. tree: its object; large: changed files that were left out for their size, with whether
    they are in the commit; converted: names of changed files that git would not write back byte for byte."""

    tree: str
    large: dict[bytes, bool] = attrs.field(factory=dict)
    converted: tuple[bytes, ...] = ()


class WorkingTrees:
    """Records working trees; who calls holds the lock of the work copy."""

    def __init__(self, git: Git, trash: Trash, blocking: Blocking) -> None:
        self._git = git
        self._trash = trash
        self._blocking = blocking

    async def record(self, places: Places, head: str | None, indexed: list[bytes]) -> Recorded:
        """The files as they are now; the index tells what is equal to `head` without reading it.

        indexed: names in the copy's own index, which may be ignored.

        Raises:
            GitFailed: git cannot record them.
            HostError: `too_large`, too many files changed.
        """
        index = places.repo / "index"
        # A damaged index is made anew; a commit whose names no index can hold is no help, then all is read.
        for start in (head, head, None):
            try:
                await self._read_head(places, index, start)
                break
            except GitFailed:
                # One that was ended by a signal leaves its lock.
                index.with_name("index.lock").unlink(missing_ok=True)
                index.unlink(missing_ok=True)
                if start is None:
                    raise
        listed = await self._git.run(
            "diff-files", "--name-only", "-z", "--ignore-submodules=all", "--no-ext-diff", "--no-textconv",
            git_dir=places.repo, work_tree=places.tree, index=index,
        )  # fmt: skip
        if listed.truncated:
            raise too_many()
        names = {name for name in listed.out.split(b"\0") if name}
        try:
            untracked = await list_untracked(self._git, places.repo, places.tree, index)
        except GitFailed as failed:
            if not failed.exhausted:
                raise
            # A rule that is matched for ever hides nothing.
            untracked = await list_untracked(self._git, places.repo, places.tree, index, rules=False)
        names.update(untracked)
        cached = await self._git.run("ls-files", "--cached", "-z", git_dir=places.repo, index=index)
        names.update(set(indexed).difference(cached.out.split(b"\0")))
        converted = await self._add(places, index, names)
        with _keeping_time(index):
            finished = await self._git.run("write-tree", git_dir=places.repo, index=index)
        tree = finished.out.decode("ascii").strip()
        return Recorded(tree, converted=tuple(converted))

    async def _read_head(self, places: Places, index: Path, head: str | None) -> None:
        """Bring the index to `head` and mark what the copy holds of it unchanged."""
        with _keeping_time(index):
            if head is None:
                await self._git.run("read-tree", "--empty", git_dir=places.repo, index=index)
            else:
                await self._git.run(
                    "read-tree", "--reset", "-i", git_dir=places.repo, index=index, operands=[head]
                )
            now = index.stat().st_mtime
        await self._git.run(
            "update-index", "-q", "--refresh", "--ignore-submodules",
            git_dir=places.repo, work_tree=places.tree, index=index, fine=(0, 1),
        )  # fmt: skip
        _set_time(index, now - _RACY)

    async def _add(self, places: Places, index: Path, names: set[bytes]) -> list[bytes]:
        """Record `names` as they are now; one that is gone is removed. Returns those that were converted."""
        if not names:
            return []
        above = os.fsencode(places.inside) + b"/" if places.inside else b""
        places.stage.mkdir(mode=0o700)
        stage = places.stage / places.inside
        try:
            asked = [above + name for name in names]
            found = await self._blocking.call(stage_files, places.copy, asked, places.stage)
            staged = [name[len(above) :] for name in found.names]
            await add_converted(self._git, places.repo, stage, index, names.difference(staged), staged)
            kept = await self._git.run("ls-files", "--stage", "-z", git_dir=places.repo, index=index)
            return await self._blocking.call(changed_bytes, stage, staged, entries(kept.out))
        finally:
            await self._blocking.call(self._trash.remove, places.stage)


async def list_untracked(git: Git, repo: Path, tree: Path, index: Path, *, rules: bool = True) -> list[bytes]:
    """Files of `tree` that are neither in the index nor ignored; those of repositories inside it are among
    them.

    git lists such a repository as one name with a slash; it is listed on its own, as the root of a
    working tree, where git passes over its `.git` like over ours.

    rules: whether what the repository ignores is left out.

    Raises:
        HostError: `too_large`, too many.
    """
    found: list[bytes] = []
    nested = [b""]
    none = repo / "no-index"
    for prefix in nested:
        listed = await git.run(
            "ls-files", "--others", *(("--exclude-standard",) if rules else ()), "-z",
            git_dir=repo, work_tree=_inside(tree, prefix), index=none if prefix else index,
            fine=(0, 128) if prefix else (0,),
        )  # fmt: skip
        if listed.truncated:
            raise too_many()
        for name in listed.out.split(b"\0"):
            if name.endswith(b"/"):
                if name != b"/" and len(nested) <= MAX_NESTED:
                    nested.append(prefix + name)
            elif name:
                found.append(prefix + name)
    return found


async def add_converted(
    git: Git, repo: Path, stage: Path, index: Path, gone: Collection[bytes], names: Collection[bytes]
) -> None:
    """Bring the index up to the files `names` of the folder `stage`, converted as attributes ask for it, and
    take `gone` out of it.
    """
    attributes = repo / "info" / "attributes"
    attributes.unlink(missing_ok=True)
    try:
        await _update_index(git, repo, stage, index, gone, names)
    except GitFailed:
        # An attribute can ask for an encoding that a file does not have; then bytes are bytes.
        attributes.parent.mkdir(exist_ok=True)
        attributes.write_text(_BYTES, encoding="ascii")
        await _update_index(git, repo, stage, index, gone, names)


async def _update_index(
    git: Git, repo: Path, stage: Path, index: Path, gone: Collection[bytes], names: Collection[bytes]
) -> None:
    """Removals first: a link can stand where a folder of removed files was."""
    for option, chosen in (("--force-remove", gone), ("--add", names)):
        if not chosen:
            continue
        with _keeping_time(index):
            await git.run(
                "update-index", option, "--replace", "-z", "--stdin",
                git_dir=repo, work_tree=stage, index=index,
                stdin=b"".join(name + b"\0" for name in chosen), timeout=READ,
            )  # fmt: skip


@contextmanager
def _keeping_time(index: Path) -> Iterator[None]:
    """The index keeps its time, whoever writes it.

    git takes a file for unchanged when its times, in whole seconds, and its size are those in the index, but
    reads it again when the index is not younger than the file. While it writes the index it marks the files
    that this would miss, and for that it must see the work tree. Most of the writers here do not see it, so
    the index may only be given the time of a moment up to which every file was looked at.
    """
    time = index.stat().st_mtime if index.exists() else 1.0
    try:
        yield
    finally:
        _set_time(index, time)


def _set_time(index: Path, time: float) -> None:
    # Never 0: git reads that as an index without a time, and then trusts it.
    with suppress(FileNotFoundError):
        os.utime(index, (max(time, 1.0), max(time, 1.0)))


def _inside(copy: Path, prefix: bytes) -> Path:
    return copy / prefix.decode("utf-8", "surrogateescape") if prefix else copy


def too_many() -> HostError:
    return HostError(
        ErrorCode.TOO_LARGE, "the work copy holds too many changed files; let the repository ignore some"
    )
