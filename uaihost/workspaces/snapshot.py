"""Taking what a work copy holds now into a repository of the daemon's own, without trusting the copy.

Everything at once for saving it; for showing it, what changed since the last look (workspaces.looks). The
commits come as workspaces.own_repository fetches them, the files are recorded apart from that
(workspaces.working_tree).
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import attrs

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.empty_rules import remove_empty_rules
from uaihost.workspaces.git_view import Refs, take_git, unreadable
from uaihost.workspaces.indexes import existing, index_trees
from uaihost.workspaces.locks import Locks
from uaihost.workspaces.looks import Look, Looks
from uaihost.workspaces.own_repository import KNOWN, TAKEN, OwnRepositories, lines_of, object_form
from uaihost.workspaces.places import Places, Record
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.safe_git import Git, GitFailed, Stalled
from uaihost.workspaces.untrusted import is_plain
from uaihost.workspaces.working_tree import Recorded, WorkingTrees

_NO_REFS = Refs(None, None, {}, ())


@attrs.frozen
class Snapshot:
    """A work copy at one moment.

    repo: the bare repository that holds it. head: the commit that is checked out, None when there is none;
    tree: the tree of the working copy, ignored files left out; fault: why its commits could not be read, in
    which case `head` is the last one known.
    index: the tree of what is staged, and unmerged, a tree with the folders 1, 2 and 3 of the sides of what
    is in conflict; converted: names of changed files that git would not write back byte for byte; missed:
    what did not come along, for people.
    """

    repo: Path
    record: Record
    refs: Refs
    head: str | None
    tree: str
    fault: str | None = None
    index: str | None = None
    unmerged: str | None = None
    converted: tuple[bytes, ...] = ()
    missed: str | None = None


@attrs.frozen
class _Commits:
    """What came of a copy's repository. names: in its index."""

    refs: Refs
    names: list[bytes] = attrs.field(factory=list)
    index: str | None = None
    unmerged: str | None = None
    fault: str | None = None
    missed: str | None = None


class Snapshots:
    """Takes snapshots; two of one work copy never at once, in this process or another."""

    def __init__(self, git: Git, mirrors: Path, trash: Trash, blocking: Blocking) -> None:
        self._git = git
        self._mirrors = mirrors
        self._trash = trash
        self._blocking = blocking
        self._trees = WorkingTrees(git, trash, blocking)
        self._own = OwnRepositories(git, mirrors, trash, blocking)
        self.looks = Looks(git, self._own, trash, blocking)
        self._locks: dict[Path, Locks] = {}

    def check(self, places: Places) -> None:
        """
        Raises:
            HostError: `not_found`, there is no such copy, and so nothing to lock.
        """
        if not places.copy.is_dir():
            raise HostError(ErrorCode.NOT_FOUND, f"the task has no work copy named {places.copy.name!r}")

    def lock(self, places: Places) -> AbstractAsyncContextManager[None]:
        """Held while the snapshot is taken and used."""
        folder = places.task / "git" / ".locks"
        locks = self._locks.setdefault(folder, Locks(self._git.reactor, folder))
        return locks.exclusive(places.copy.name)

    def forget(self, task: Path) -> None:
        """The task's work copies are gone."""
        self._locks.pop(task / "git" / ".locks", None)
        self.looks.forget(task)

    async def take(self, places: Places, *, largest: int) -> Look:
        """What the work copy holds; what did not change since the last time is not read again. The caller
        holds the lock.

        largest: bytes; changed files above that are named and not read.

        Raises:
            HostError: `not_found`, there is no such copy; `conflict`, it cannot be read, with the reason.
        """
        self.check(places)
        record = Record.load(places.record)
        if record is None:
            raise HostError(ErrorCode.NOT_FOUND, f"nothing is known of the work copy {places.copy.name!r}")
        return await self.looks.take(places, record, largest)

    def view(self, places: Places, record: Record) -> AbstractAsyncContextManager[Path]:
        """The copy's own objects and index as a repository of ours. The caller holds the lock."""
        return self._own.view(places, record)

    async def take_all(self, places: Places, record: Record) -> Snapshot:
        """What the work copy, or a repository inside it, holds, for saving. The caller holds the lock.

        Where the files are not there, the tree is that of the commit that is checked out.

        record: what is known of it; empty strings where nothing is. When its repository cannot be read, the
        files are recorded on the last head known.

        Raises:
            HostError: `conflict`, not even the files can be recorded.
        """
        return await self._own.again(places, partial(self._take_all, places, record))

    async def _take_all(self, places: Places, record: Record) -> Snapshot:
        await self._own.set_up(places, record)
        found = await self._commits(places, record)
        head = found.refs.head
        if found.fault is not None:
            known = await self._git.line("rev-parse", "--verify", "--quiet", KNOWN, git_dir=places.repo)
            head = known or record.head or None
        elif head is not None:
            await self._git.run("update-ref", git_dir=places.repo, operands=[KNOWN, head])
        if places.tree.is_dir():
            try:
                files = await self._trees.record(places, head, found.names)
            except (Stalled, GitFailed) as error:
                rules = isinstance(error, Stalled) or error.starved
                if not rules or not await self._blocking.call(remove_empty_rules, places.tree):
                    raise
                files = await self._trees.record(places, head, found.names)
        else:
            files = Recorded(await self._own.committed(places, head))
        return Snapshot(
            places.repo, record, found.refs, head, files.tree, found.fault,
            found.index, found.unmerged, files.converted, found.missed,
        )  # fmt: skip

    async def _commits(self, places: Places, record: Record) -> _Commits:
        """Fetch them; or why they cannot be read, which is no reason to stop.

        A second try, because a repack in the container moves objects while they are linked. A third one for
        what has a name, because what only logs lead to may have lost its own beginnings. A last one without
        the names that keep the others from coming: those that lead to nothing, or to what git does not take.
        """
        fault = ""
        for extras, whole in ((True, True), (True, True), (False, True), (False, False)):
            try:
                found = await self._fetch(places, record, extras, whole)
                if not extras:
                    notes = [f"commits that only its log leads to: {fault}", found.missed]
                    return attrs.evolve(found, missed="; ".join(filter(None, notes)))
                return found
            except GitFailed as failed:
                fault = unreadable(f"git says: {failed.last_line}").message
            except HostError as refused:
                if refused.code is not ErrorCode.CONFLICT:
                    raise
                fault = refused.message
        known = (await self._own.arrived(places, _NO_REFS)).refs
        if record.branch and record.branch not in known.heads:
            known.heads[record.branch] = record.head
        return _Commits(known, fault=fault)

    async def _fetch(self, places: Places, record: Record, extras: bool, whole: bool) -> _Commits:
        """whole: a name that cannot come along is an error."""
        await self._blocking.call(self._trash.remove, places.view)
        await self._own.init(places.view, object_form(record))
        try:
            refs = await self._blocking.call(
                partial(take_git, places.copy, places.view, places.git, whole=extras)
            )
            lines = lines_of(refs)
            if extras:
                refs = attrs.evolve(refs, tags=await self._own_tags(refs.tags, record))
                lines += await existing(self._git, places.view, _extra_lines(refs))
                lines += await index_trees(self._git, places.view, TAKEN)
            if whole:
                await self._own.bring(places, lines)
            else:
                # The task's own branch before all others.
                lines.sort(key=lambda line: line[1] != f"{TAKEN}heads/{record.branch}")
                await self._own.bring_most(places, await existing(self._git, places.view, lines))
            indexed = await self._indexed(places.view)
        finally:
            await self._blocking.call(self._trash.remove, places.view)
        here = await self._own.arrived(places, refs)
        missed = _lacking(refs, here.refs)
        return _Commits(here.refs, indexed, here.index, here.unmerged, missed=missed)

    async def _own_tags(self, tags: dict[str, str], record: Record) -> dict[str, str]:
        """Those that the remote does not have."""
        mirror = self._mirrors / f"{record.key}.git"
        if not tags or not record.key or not mirror.is_dir():
            return tags
        listed = await self._git.run(
            "for-each-ref", "--format=%(objectname) %(refname)", git_dir=mirror, operands=["refs/tags/"]
        )
        theirs = set(listed.out.decode("utf-8", "surrogateescape").splitlines())
        return {name: oid for name, oid in tags.items() if f"{oid} refs/tags/{name}" not in theirs}

    async def _indexed(self, view: Path) -> list[bytes]:
        """The names in the copy's index: one that was added although it is ignored is listed nowhere else."""
        try:
            listed = await self._git.run("ls-files", "--cached", "-z", git_dir=view)
        except GitFailed:
            return []
        return [name for name in listed.out.split(b"\0") if is_plain(name)]


def _extra_lines(refs: Refs) -> list[tuple[str, str]]:
    lines = [(oid, f"{TAKEN}tags/{name}") for name, oid in refs.tags.items()]
    lines += [(oid, f"{TAKEN}others/{name}") for name, oid in refs.others.items()]
    lines += [(oid, f"{TAKEN}past/{number}") for number, oid in enumerate(refs.past)]
    return lines + [(oid, f"{TAKEN}pending/{name}") for name, oid in refs.pending.items()]


def _lacking(wanted: Refs, arrived: Refs) -> str | None:
    """What has a name in the copy and did not come along, as it leads to nothing."""
    names = [name for name in wanted.heads if name not in arrived.heads]
    names += [
        f"the newest of {name}" for name, oid in arrived.heads.items() if wanted.heads.get(name, oid) != oid
    ]
    if len(arrived.stashes) < len(wanted.stashes):
        names.append("a stash")
    if wanted.detached is not None and arrived.detached is None:
        names.append("the detached HEAD")
    if not names:
        return None
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"commits that cannot be read: {shown}"
