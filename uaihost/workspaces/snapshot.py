"""Taking what a work copy holds now into a repository of the daemon's own, without trusting the copy.

Commits come by a fetch from a view: a bare repository of ours whose objects are links to the copy's and
whose refs we wrote. git there sees none of the agent's configuration, and what arrives is verified.
The working tree is recorded with our own git directory and index: git lists what differs, the files named
are linked into a stage that the agent cannot reach, and only from there are they read. Hooks, filters,
textconv, fsmonitor and whatever else a `.git/config` can define are never defined for these runs.

The repository borrows the mirror's objects and goes away with the task.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
from twisted.internet.defer import DeferredLock

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.places import Places, Record
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.untrusted import Refs, is_plain, stage_files, take_git, unreadable

# Where fetched work lies in the repository: heads/<branch>, stash/<number>, detached.
TAKEN = "refs/copy/"
# Repositories inside a work copy that are recorded as plain folders; more are left out.
MAX_NESTED = 100

# Seconds for reading all changed files: enough for some GiB.
_READ = 1800.0
# Seconds: a file that changed this shortly before it was looked at can change again within the same second.
_RACY = 2.0
# The last head that could be read.
_KNOWN = "refs/known-head"
_NO_REFS = Refs(None, None, {}, ())


@attrs.frozen
class Snapshot:
    """A work copy at one moment.

    repo: the bare repository that holds it. head: the commit that is checked out, None when there is none;
    tree: the tree of the working copy, ignored files left out; large: names of changed files that were left
    out for their size, with whether they are in `head`; fault: why its commits could not be read, in which
    case `head` is the last one known.
    """

    repo: Path
    record: Record
    refs: Refs
    head: str | None
    tree: str
    large: dict[bytes, bool]
    fault: str | None = None


class Snapshots:
    """Takes snapshots; two of one work copy never at once."""

    def __init__(self, git: Git, mirrors: Path, trash: Trash, blocking: Blocking) -> None:
        self._git = git
        self._mirrors = mirrors
        self._trash = trash
        self._blocking = blocking
        self._locks: dict[Path, DeferredLock] = {}

    def lock(self, places: Places) -> DeferredLock:
        """Held while the snapshot is taken and used."""
        return self._locks.setdefault(places.own, DeferredLock())

    def forget(self, task: Path) -> None:
        """The task's work copies are gone."""
        for own in [own for own in self._locks if own.is_relative_to(task)]:
            del self._locks[own]

    async def take(
        self, places: Places, *, largest: int | None = None, despite_faults: bool = False
    ) -> Snapshot:
        """What the work copy holds. The caller holds the lock.

        largest: bytes; changed files above that are named and not read.
        despite_faults: when its `.git` cannot be read, record the working tree on the last head known.

        Raises:
            HostError: `not_found`, there is no such copy; `conflict`, it cannot be read, with the reason.
        """
        record = Record.load(places.record)
        if record is None or not places.copy.is_dir():
            raise HostError(ErrorCode.NOT_FOUND, f"the task has no work copy named {places.copy.name!r}")
        for last in (False, True):
            try:
                return await self._take(places, record, largest, despite_faults)
            except GitFailed as failed:
                if last or not failed.corrupt:
                    raise HostError(
                        ErrorCode.CONFLICT,
                        f"the work copy {places.copy.name!r} cannot be recorded: {failed.last_line}",
                    ) from None
            # What the repository borrowed is gone: all that it holds can be taken again.
            await self._blocking.call(self._trash.remove, places.repo)
        raise AssertionError("the second try returns or raises")

    async def _take(
        self, places: Places, record: Record, largest: int | None, despite_faults: bool
    ) -> Snapshot:
        await self._set_up(places, record)
        refs, indexed, fault = await self._commits(places, record, despite_faults)
        head = refs.head
        if fault is not None:
            known = await self._git.line("rev-parse", "--verify", "--quiet", _KNOWN, git_dir=places.repo)
            head = known or record.head
        elif head is not None:
            await self._git.run("update-ref", git_dir=places.repo, operands=[_KNOWN, head])
        tree, large = await self._tree(places, head, indexed, largest)
        return Snapshot(places.repo, record, refs, head, tree, large, fault)

    async def _set_up(self, places: Places, record: Record) -> None:
        mirror = self._mirrors / f"{record.key}.git"
        for passing in (places.view, places.stage):
            await self._blocking.call(self._trash.remove, passing)
        # A git that was killed leaves its locks; the lock we hold says that none runs.
        for name in ("index.lock", "packed-refs.lock", "HEAD.lock"):
            (places.repo / name).unlink(missing_ok=True)
        if (places.repo / "objects" / "info" / "alternates").exists():
            return
        await self._blocking.call(self._trash.remove, places.repo)
        form = await self._git.line("rev-parse", "--show-object-format", git_dir=mirror)
        await self._init(places.repo, form)
        (places.repo / "info").mkdir(exist_ok=True)
        (places.repo / "objects" / "info").mkdir(exist_ok=True)
        (places.repo / "objects" / "info" / "alternates").write_text(
            f"{mirror / 'objects'}\n", encoding="utf-8"
        )

    async def _init(self, path: Path, form: str) -> None:
        await self._git.run(
            "init", "--quiet", "--bare", "--template=", f"--object-format={form}", "--", operands=[str(path)]
        )

    async def _commits(
        self, places: Places, record: Record, despite_faults: bool
    ) -> tuple[Refs, list[bytes], str | None]:
        """Fetch them; also the names in the copy's index, and why it all cannot be read.

        A second try, because a repack in the container moves objects while they are linked.
        """
        fault = ""
        for _ in range(2):
            try:
                return *(await self._fetch(places)), None
            except GitFailed as failed:
                error = unreadable(f"git says: {failed.last_line}")
            except HostError as refused:
                if refused.code is not ErrorCode.CONFLICT:
                    raise
                error = refused
            if not despite_faults:
                raise error
            fault = error.message
        known = await self._arrived(places, _NO_REFS)
        if record.branch not in known.heads:
            known.heads[record.branch] = record.head
        return known, [], fault

    async def _fetch(self, places: Places) -> tuple[Refs, list[bytes]]:
        await self._blocking.call(self._trash.remove, places.view)
        form = await self._git.line("rev-parse", "--show-object-format", git_dir=places.repo)
        await self._init(places.view, form)
        try:
            refs = await self._blocking.call(take_git, places.copy, places.view)
            await self._blocking.call(_write_refs, refs, places)
            await self._git.run(
                "fetch", "--prune", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--quiet",
                "--", git_dir=places.repo, operands=[str(places.view), f"+{TAKEN}*:{TAKEN}*"],
                protocols=["file"],
            )  # fmt: skip
            indexed = await self._indexed(places.view)
        finally:
            await self._blocking.call(self._trash.remove, places.view)
        return await self._arrived(places, refs), indexed

    async def _indexed(self, view: Path) -> list[bytes]:
        """The names in the copy's index: one that was added although it is ignored is listed nowhere else."""
        try:
            listed = await self._git.run("ls-files", "--cached", "-z", git_dir=view)
        except GitFailed:
            return []
        return [name for name in listed.out.split(b"\0") if is_plain(name)]

    async def _arrived(self, places: Places, refs: Refs) -> Refs:
        """`refs` as they are in the repository: a ref to what is missing or no commit did not come along."""
        listed = await self._git.run(
            "for-each-ref", "--format=%(objecttype) %(objectname) %(refname)",
            git_dir=places.repo, operands=[TAKEN],
        )  # fmt: skip
        heads: dict[str, str] = {}
        stashes: dict[int, str] = {}
        detached = None
        for line in listed.out.decode("utf-8", "surrogateescape").splitlines():
            kind, oid, name = line.split(" ", 2)
            place, _, rest = name.removeprefix(TAKEN).partition("/")
            if kind != "commit":
                continue
            if place == "heads":
                heads[rest] = oid
            elif place == "stash":
                stashes[int(rest)] = oid
            else:
                detached = oid
        return Refs(refs.branch, detached, heads, tuple(oid for _, oid in sorted(stashes.items())))

    async def _tree(
        self, places: Places, head: str | None, indexed: list[bytes], largest: int | None
    ) -> tuple[str, dict[bytes, bool]]:
        """The working tree as a tree object, and what is too large for it.

        The index tells what is equal to HEAD without reading it.
        """
        index = places.repo / "index"
        # A damaged index is made anew; a commit whose names no index can hold is no help, then all is read.
        for start in (head, head, None):
            try:
                await self._read_head(places, index, start)
                break
            except GitFailed:
                index.unlink(missing_ok=True)
                if start is None:
                    raise
        listed = await self._git.run(
            "diff-files", "--name-only", "-z", "--ignore-submodules=all", "--no-ext-diff", "--no-textconv",
            git_dir=places.repo, work_tree=places.copy, index=index,
        )  # fmt: skip
        if listed.truncated:
            raise _too_many()
        tracked = {name for name in listed.out.split(b"\0") if name}
        names = tracked.union(await self._untracked(places, index))
        cached = await self._git.run("ls-files", "--cached", "-z", git_dir=places.repo, index=index)
        names.update(set(indexed).difference(cached.out.split(b"\0")))
        large = await self._add(places, index, names, largest)
        with _keeping_time(index):
            finished = await self._git.run("write-tree", git_dir=places.repo, index=index)
        return finished.out.decode("ascii").strip(), {name: name in tracked for name in large}

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
            git_dir=places.repo, work_tree=places.copy, index=index, fine=(0, 1),
        )  # fmt: skip
        _set_time(index, now - _RACY)

    async def _untracked(self, places: Places, index: Path) -> list[bytes]:
        """Files that are neither tracked nor ignored; those of repositories inside the copy are among them.

        git lists such a repository as one name with a slash; it is listed on its own, as the root of a
        working tree, where git passes over its `.git` like over ours.
        """
        found: list[bytes] = []
        nested = [b""]
        none = places.repo / "no-index"
        for prefix in nested:
            listed = await self._git.run(
                "ls-files", "--others", "--exclude-standard", "-z",
                git_dir=places.repo, work_tree=_inside(places.copy, prefix), index=none if prefix else index,
                fine=(0, 128) if prefix else (0,),
            )  # fmt: skip
            if listed.truncated:
                raise _too_many()
            for name in listed.out.split(b"\0"):
                if name.endswith(b"/"):
                    if name != b"/" and len(nested) <= MAX_NESTED:
                        nested.append(prefix + name)
                elif name:
                    found.append(prefix + name)
        return found

    async def _add(self, places: Places, index: Path, names: set[bytes], largest: int | None) -> list[bytes]:
        """Record `names` as they are now; one that is gone is removed. Returns those that are too large."""
        if not names:
            return []
        places.stage.mkdir(mode=0o700)
        attributes = places.repo / "info" / "attributes"
        attributes.unlink(missing_ok=True)
        try:
            staged = await self._blocking.call(stage_files, places.copy, names, places.stage, largest)
            gone = names.difference(staged.names, staged.large)
            try:
                await self._update_index(places, index, gone, staged.names)
            except GitFailed:
                # An attribute can ask for an encoding that a file does not have; then bytes are bytes.
                attributes.write_text("* -text !working-tree-encoding !ident !filter\n", encoding="ascii")
                await self._update_index(places, index, gone, staged.names)
        finally:
            await self._blocking.call(self._trash.remove, places.stage)
        return staged.large

    async def _update_index(self, places: Places, index: Path, gone: set[bytes], staged: list[bytes]) -> None:
        """Removals first: a link can stand where a folder of removed files was."""
        for option, chosen in (("--force-remove", gone), ("--add", staged)):
            with _keeping_time(index):
                await self._git.run(
                    "update-index", option, "--replace", "-z", "--stdin",
                    git_dir=places.repo, work_tree=places.stage, index=index,
                    stdin=b"".join(name + b"\0" for name in chosen), timeout=_READ,
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


def _write_refs(refs: Refs, places: Places) -> None:
    lines = [f"{oid} {TAKEN}heads/{name}" for name, oid in refs.heads.items()]
    lines += [f"{oid} {TAKEN}stash/{number}" for number, oid in enumerate(refs.stashes)]
    if refs.detached is not None:
        lines.append(f"{refs.detached} {TAKEN}detached")
    (places.view / "packed-refs").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _inside(copy: Path, prefix: bytes) -> Path:
    return copy / prefix.decode("utf-8", "surrogateescape") if prefix else copy


def _too_many() -> HostError:
    return HostError(
        ErrorCode.TOO_LARGE, "the work copy holds too many changed files; let the repository ignore some"
    )
