"""Taking what a work copy holds now into a repository of the daemon's own, without trusting the copy.

Commits come by a fetch from a view: a bare repository of ours whose objects are links to the copy's and
whose refs we wrote. git there sees none of the agent's configuration, and what arrives is verified.
The working tree is recorded apart from that (workspaces.working_tree). Hooks, filters,
textconv, fsmonitor and whatever else a `.git/config` can define are never defined for these runs.

The repository borrows the mirror's objects and goes away with the task.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.git_view import Refs, take_git, unreadable
from uaihost.workspaces.indexes import existing, index_trees
from uaihost.workspaces.locks import Locks
from uaihost.workspaces.nested import DEEPEST, Link, git_folders, gitlinks
from uaihost.workspaces.places import Places, Record
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.seen_tree import SeenTrees
from uaihost.workspaces.staging import Staging, compare, digest, empty_tree
from uaihost.workspaces.untrusted import is_plain
from uaihost.workspaces.upkeep import clear_all
from uaihost.workspaces.working_tree import Recorded, WorkingTrees

log = Logger()

# Where fetched work lies in the repository: heads/<branch>, stash/<number>, detached; where all is taken also
# tags/<name>, past/<number>, pending/<name>, index, unmerged.
TAKEN = "refs/copy/"
# Seconds for fetching all that is new: enough for some GiB.
_READ = 1800.0
# The last head that could be read.
_KNOWN = "refs/known-head"
_NO_REFS = Refs(None, None, {}, ())
# Characters of the longer kind of object names.
_SHA256 = 64


@attrs.frozen
class Snapshot:
    """A work copy at one moment.

    repo: the bare repository that holds it. head: the commit that is checked out, None when there is none;
    tree: the tree of the working copy, ignored files left out; large: names of changed files that were left
    out for their size, with whether they are in `head`; fault: why its commits could not be read, in which
    case `head` is the last one known.
    Only where all is not taken: index_digest, of the copy's own index, which lies at `Places.index`; staging,
    how that differs from `head`, each None when there is none that can be read; links, by their names.
    Only where all is taken: index, the tree of what is staged, and unmerged, a tree with the folders 1, 2
    and 3 of the sides of what is in conflict; converted: names of changed files that git would not write
    back byte for byte; missed: what did not come along, for people.
    """

    repo: Path
    record: Record
    refs: Refs
    head: str | None
    tree: str
    large: dict[bytes, bool]
    fault: str | None = None
    index: str | None = None
    unmerged: str | None = None
    converted: tuple[bytes, ...] = ()
    missed: str | None = None
    index_digest: bytes | None = None
    staging: Staging | None = None
    links: dict[bytes, Link] = attrs.field(factory=dict)


@attrs.frozen
class _Commits:
    """What came of a copy's repository. names: in its index."""

    refs: Refs
    names: list[bytes] = attrs.field(factory=list)
    index: str | None = None
    unmerged: str | None = None
    fault: str | None = None
    missed: str | None = None


@attrs.frozen
class _Arrived:
    """What was fetched last. named: the refs as the copy has them; refs: those that came along; digest: of
    its index; inode: of the repository it was fetched into."""

    named: Refs
    refs: Refs
    digest: bytes | None
    inode: int


@attrs.frozen
class _Staged:
    """The copy's index as it was compared last."""

    digest: bytes
    head: str | None
    staging: Staging | None


class Snapshots:
    """Takes snapshots; two of one work copy never at once, in this process or another."""

    def __init__(self, git: Git, mirrors: Path, trash: Trash, blocking: Blocking) -> None:
        self._git = git
        self._mirrors = mirrors
        self._trash = trash
        self._blocking = blocking
        self._trees = WorkingTrees(git, trash, blocking)
        self._seen = SeenTrees(git, trash, blocking)
        self._arrived_last: dict[Path, _Arrived] = {}
        self._staged_last: dict[Path, _Staged] = {}
        self._links_last: dict[Path, tuple[str | None, frozenset[bytes]]] = {}
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
        self._seen.forget(task)
        known: MutableMapping[Path, Any]
        for known in (self._arrived_last, self._staged_last, self._links_last):
            for own in [own for own in known if own.is_relative_to(task)]:
                del known[own]

    async def take(self, places: Places, *, largest: int) -> Snapshot:
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
        return await self._again(places, partial(self._look, places, record, largest))

    async def take_all(self, places: Places, record: Record) -> Snapshot:
        """What the work copy, or a repository inside it, holds, for saving. The caller holds the lock.

        Where the files are not there, the tree is that of the commit that is checked out.

        record: what is known of it; empty strings where nothing is. When its repository cannot be read, the
        files are recorded on the last head known.

        Raises:
            HostError: `conflict`, not even the files can be recorded.
        """
        return await self._again(places, partial(self._take_all, places, record))

    async def _again(self, places: Places, take: Callable[[], Awaitable[Snapshot]]) -> Snapshot:
        for last in (False, True):
            try:
                return await take()
            except GitFailed as failed:
                if last or not failed.corrupt:
                    raise HostError(
                        ErrorCode.CONFLICT,
                        f"the work copy {places.copy.name!r} cannot be recorded: {failed.last_line}",
                    ) from None
            # What the repository borrowed is gone: all that it holds can be taken again.
            await self._blocking.call(self._trash.remove, places.repo)
        raise AssertionError("the second try returns or raises")

    async def _look(self, places: Places, record: Record, largest: int, depth: int = 0) -> Snapshot:
        await self._set_up(places, record)
        found = await self._looked(places, record)
        head, staging = found.refs.head, None
        if found.digest is not None:
            staging = await self._staging(places, record, found.digest, head)
        links = await self._links(places, record, head, staging, largest, depth)
        added = frozenset() if staging is None else staging.added | staging.conflicts
        commits = {name: link.commit for name, link in links.items()}
        files = await self._seen.look(places, head, added, commits, largest)
        return Snapshot(
            places.seen, record, found.refs, head, files.tree, files.large,
            index_digest=found.digest, staging=staging, links=links,
        )  # fmt: skip

    async def _links(
        self,
        places: Places,
        record: Record,
        head: str | None,
        staging: Staging | None,
        largest: int,
        depth: int,
    ) -> dict[bytes, Link]:
        """What the repositories are on that the copy's commit and index name."""
        last = self._links_last.get(places.own)
        if last is None or last[0] != head:
            names: list[bytes] = []
            if head is not None:
                listed = await self._git.run("ls-tree", "-r", "-z", git_dir=places.repo, operands=[head])
                names = gitlinks(listed.out)
            last = self._links_last[places.own] = head, frozenset(names)
        wanted = last[1] if staging is None else last[1] | staging.links.keys()
        if not wanted or depth >= DEEPEST:
            return {}
        folders = await self._blocking.call(git_folders, places.copy, places.inside, wanted)
        found = {}
        for path, git_dir in folders.items():
            inner = places.inner("/".join(filter(None, (places.inside, _text(path)))), _text(git_dir))
            try:
                its = inner_record(record, git_dir)
                seen = await self._again(inner, partial(self._look, inner, its, largest, depth + 1))
                if seen.head is not None:
                    clean = await self._committed(inner, seen.head)
                    dirty = seen.tree != clean or bool(seen.large)
                    dirty = dirty or any(link.dirty for link in seen.links.values())
                    found[path] = Link(seen.head, dirty, seen.tree)
            except (HostError, OSError) as error:
                # It counts as being where the copy's own commit says.
                log.warn("{path} in {copy}: {error}", path=path, copy=places.copy.name, error=str(error))
        return found

    @asynccontextmanager
    async def view(self, places: Places, record: Record) -> AsyncIterator[Path]:
        """The copy's own objects and index as a repository of ours. The caller holds the lock.

        Raises:
            HostError: `conflict`, its `.git` cannot be read.
        """
        await self._blocking.call(self._trash.remove, places.view)
        await self._init(places.view, object_form(record))
        try:
            await self._blocking.call(take_git, places.copy, places.view, places.git)
            yield places.view
        finally:
            await self._blocking.call(self._trash.remove, places.view)

    async def _looked(self, places: Places, record: Record) -> _Arrived:
        """The copy's commits, brought here when they are not."""
        known = self._arrived_last.get(places.own)
        if known is not None and known.inode != places.repo.stat().st_ino:
            known = None
        for last in (False, True):
            try:
                refs, digest = await self._blocking.call(_see, places, known.named if known else None)
                if known is None or refs != known.named:
                    await self._init(places.view, object_form(record))
                    await self._bring(places, _lines(refs))
                    arrived = (await self._arrived(places, refs)).refs
                    known = _Arrived(refs, arrived, None, places.repo.stat().st_ino)
                    if arrived.head is not None:
                        await self._git.run(
                            "update-ref", git_dir=places.repo, operands=[_KNOWN, arrived.head]
                        )
                    self._arrived_last[places.own] = known
                return attrs.evolve(known, digest=digest)
            except GitFailed as failed:
                known = None
                if last:
                    raise unreadable(f"git says: {failed.last_line}") from None
            except HostError as refused:
                # A repack in the container moves objects while they are linked.
                if last or refused.code is not ErrorCode.CONFLICT:
                    raise
            finally:
                await self._blocking.call(self._trash.remove, places.view)
        raise AssertionError("the second try returns or raises")

    async def _staging(
        self, places: Places, record: Record, digest: bytes, head: str | None
    ) -> Staging | None:
        last = self._staged_last.get(places.own)
        if last is None or (last.digest, last.head) != (digest, head):
            tree = head or empty_tree(object_form(record))
            last = _Staged(digest, head, await compare(self._git, places.repo, places.index, tree))
            self._staged_last[places.own] = last
        return last.staging

    async def _take_all(self, places: Places, record: Record) -> Snapshot:
        await self._set_up(places, record)
        found = await self._commits(places, record)
        head = found.refs.head
        if found.fault is not None:
            known = await self._git.line("rev-parse", "--verify", "--quiet", _KNOWN, git_dir=places.repo)
            head = known or record.head or None
        elif head is not None:
            await self._git.run("update-ref", git_dir=places.repo, operands=[_KNOWN, head])
        if places.tree.is_dir():
            files = await self._trees.record(places, head, found.names)
        else:
            files = Recorded(await self._committed(places, head))
        return Snapshot(
            places.repo, record, found.refs, head, files.tree, files.large, found.fault,
            found.index, found.unmerged, files.converted, found.missed,
        )  # fmt: skip

    async def _set_up(self, places: Places, record: Record) -> None:
        for passing in (places.view, places.stage):
            await self._blocking.call(self._trash.remove, passing)
        # A git that was killed leaves its locks; the lock we hold says that none runs.
        await self._blocking.call(clear_all, places.repo)
        lent = f"{self._mirrors / record.key}.git/objects\n" if record.key else ""
        # A mirror may be gone: the copy itself is whole.
        lent = lent if lent and Path(lent.rstrip("\n")).is_dir() else ""
        alternates = places.repo / "objects" / "info" / "alternates"
        if alternates.exists() and alternates.read_text(encoding="utf-8") == lent:
            return
        await self._blocking.call(self._trash.remove, places.repo)
        places.own.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._init(places.repo, object_form(record))
        (places.repo / "info").mkdir(exist_ok=True)
        (places.repo / "objects" / "info").mkdir(exist_ok=True)
        alternates.write_text(lent, encoding="utf-8")

    async def _init(self, path: Path, form: str) -> None:
        await self._git.run(
            "init", "--quiet", "--bare", "--template=", f"--object-format={form}", "--", operands=[str(path)]
        )

    async def _commits(self, places: Places, record: Record) -> _Commits:
        """Fetch them; or why they cannot be read, which is no reason to stop.

        A second try, because a repack in the container moves objects while they are linked. A last one for
        what has a name, because what only logs lead to may have lost its own beginnings.
        """
        fault = ""
        for extras in (True, True, False):
            try:
                found = await self._fetch(places, record, extras)
                if not extras:
                    return attrs.evolve(found, missed=f"commits that only its log leads to: {fault}")
                return found
            except GitFailed as failed:
                fault = unreadable(f"git says: {failed.last_line}").message
            except HostError as refused:
                if refused.code is not ErrorCode.CONFLICT:
                    raise
                fault = refused.message
        known = (await self._arrived(places, _NO_REFS)).refs
        if record.branch and record.branch not in known.heads:
            known.heads[record.branch] = record.head
        return _Commits(known, fault=fault)

    async def _fetch(self, places: Places, record: Record, extras: bool) -> _Commits:
        await self._blocking.call(self._trash.remove, places.view)
        await self._init(places.view, object_form(record))
        try:
            refs = await self._blocking.call(
                partial(take_git, places.copy, places.view, places.git, whole=extras)
            )
            lines = _lines(refs)
            if extras:
                refs = attrs.evolve(refs, tags=await self._own_tags(refs.tags, record))
                lines += await existing(self._git, places.view, _extra_lines(refs))
                lines += await index_trees(self._git, places.view, TAKEN)
            await self._bring(places, lines)
            indexed = await self._indexed(places.view)
        finally:
            await self._blocking.call(self._trash.remove, places.view)
        arrived = await self._arrived(places, refs)
        return attrs.evolve(arrived, names=indexed, missed=_lacking(refs, arrived.refs))

    async def _bring(self, places: Places, lines: list[tuple[str, str]]) -> None:
        """Fetch what the view is to have by the names of `lines`."""
        packed = "".join(f"{oid} {name}\n" for oid, name in lines)
        await self._blocking.call((places.view / "packed-refs").write_text, packed, encoding="utf-8")
        await self._git.run(
            "fetch", "--prune", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--quiet",
            "--", git_dir=places.repo, operands=[str(places.view), f"+{TAKEN}*:{TAKEN}*"],
            protocols=["file"], timeout=_READ,
        )  # fmt: skip

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

    async def _arrived(self, places: Places, refs: Refs) -> _Commits:
        """`refs` as they are in the repository: a ref to what is missing or no commit did not come along."""
        listed = await self._git.run(
            "for-each-ref", "--format=%(objecttype) %(objectname) %(refname)",
            git_dir=places.repo, operands=[TAKEN],
        )  # fmt: skip
        places_of: dict[str, dict[str, str]] = {
            name: {} for name in ("heads", "stash", "tags", "past", "pending", "others")
        }
        detached = index = unmerged = None
        for line in listed.out.decode("utf-8", "surrogateescape").splitlines():
            kind, oid, name = line.split(" ", 2)
            place, _, rest = name.removeprefix(TAKEN).partition("/")
            if place in ("tags", "others") or (place in places_of and kind == "commit"):
                places_of[place][rest] = oid
            elif place == "detached" and kind == "commit":
                detached = oid
            elif place == "index":
                index = oid
            elif place == "unmerged":
                unmerged = oid
        found = Refs(
            refs.branch, detached, places_of["heads"], _numbered(places_of["stash"]),
            places_of["tags"], _numbered(places_of["past"]), places_of["pending"],
            places_of["others"],
        )  # fmt: skip
        return _Commits(found, [], index, unmerged)

    async def _committed(self, places: Places, head: str | None) -> str:
        if head is None:
            return (await self._git.run("mktree", git_dir=places.repo)).out.decode("ascii").strip()
        return await self._git.line(
            "rev-parse", "--verify", git_dir=places.repo, operands=[f"{head}^{{tree}}"]
        )


def _see(places: Places, known: Refs | None) -> tuple[Refs, bytes | None]:
    """Read the copy's refs, make its view unless they are the known ones, and take its index apart."""
    places.view.mkdir(mode=0o700)
    refs = take_git(places.copy, places.view, places.git, known=known)
    index = places.view / "index"
    if not index.exists():
        return refs, None
    index.replace(places.index)
    return refs, digest(places.index)


def _lines(refs: Refs) -> list[tuple[str, str]]:
    """What has a name in the copy, as it is named here."""
    lines = [(oid, f"{TAKEN}heads/{name}") for name, oid in refs.heads.items()]
    lines += [(oid, f"{TAKEN}stash/{number}") for number, oid in enumerate(refs.stashes)]
    if refs.detached is not None:
        lines.append((refs.detached, f"{TAKEN}detached"))
    return lines


def _extra_lines(refs: Refs) -> list[tuple[str, str]]:
    lines = [(oid, f"{TAKEN}tags/{name}") for name, oid in refs.tags.items()]
    lines += [(oid, f"{TAKEN}others/{name}") for name, oid in refs.others.items()]
    lines += [(oid, f"{TAKEN}past/{number}") for number, oid in enumerate(refs.past)]
    return lines + [(oid, f"{TAKEN}pending/{name}") for name, oid in refs.pending.items()]


def _numbered(found: dict[str, str]) -> tuple[str, ...]:
    return tuple(found[number] for number in sorted(found, key=int))


def _lacking(wanted: Refs, arrived: Refs) -> str | None:
    """What has a name in the copy and did not come along, as it leads to nothing."""
    names = [name for name in wanted.heads if name not in arrived.heads]
    if len(arrived.stashes) < len(wanted.stashes):
        names.append("a stash")
    if wanted.detached is not None and arrived.detached is None:
        names.append("the detached HEAD")
    if not names:
        return None
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"commits that cannot be read: {shown}"


def inner_record(record: Record, git_dir: bytes) -> Record:
    """What is known of a repository inside, which is kept in `git_dir`: of a submodule, the mirror it came
    from."""
    for one in record.submodules:
        if git_dir == os.fsencode(one.git_dir):
            return attrs.evolve(record, key=one.key, display=one.display, branch="", head="")
    return attrs.evolve(record, key="", branch="", head="")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def object_form(record: Record) -> str:
    """How the repository names its objects."""
    return "sha256" if len(record.base) == _SHA256 else "sha1"
