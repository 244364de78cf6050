"""What a work copy holds now, for showing it again and again: only what changed since the last look is read.

The commits are fetched when a ref of the copy moved, its index is compared when its bytes changed, its files
are recorded as workspaces.seen_tree does. What is kept in memory for that may be lost at any time.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.git_view import Refs, take_git, unreadable
from uaihost.workspaces.nested import DEEPEST, Link, git_folders, gitlinks
from uaihost.workspaces.own_repository import KNOWN, OwnRepositories, inner_record, lines_of, object_form
from uaihost.workspaces.places import Places, Record
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.seen_tree import SeenTrees
from uaihost.workspaces.staging import Staging, compare, digest, empty_tree

log = Logger()


@attrs.frozen
class Look:
    """A work copy at one moment.

    repo: a repository that holds it until the next look. head: the commit that is checked out, None when
    there is none; tree: of the files, ignored ones left out; large: names of changed files that were left
    out for their size, with whether they are in `head`. index_digest: of the copy's own index, which lies at
    `Places.index`; staging, how that differs from `head`; each None when there is none that can be read.
    links: the repositories inside, by their names. since: the tree of the look before, and the files that are
    not as there, where that is known.
    """

    repo: Path
    record: Record
    refs: Refs
    head: str | None
    tree: str
    large: dict[bytes, bool]
    index_digest: bytes | None
    staging: Staging | None
    links: dict[bytes, Link]
    since: tuple[str, frozenset[bytes]] | None


@attrs.frozen
class _Arrived:
    """What was fetched last. named: the refs as the copy has them; refs: those that came along; digest: of
    its index; repository: which one it was fetched into."""

    named: Refs
    refs: Refs
    digest: bytes | None
    repository: tuple[int, int]


@attrs.frozen
class _Staged:
    """The copy's index as it was compared last."""

    digest: bytes
    head: str | None
    staging: Staging | None


class Looks:
    """Looks at work copies; who calls holds the lock of the work copy."""

    def __init__(self, git: Git, own: OwnRepositories, trash: Trash, blocking: Blocking) -> None:
        self._git = git
        self._own = own
        self._trash = trash
        self._blocking = blocking
        self.trees = SeenTrees(git, trash, blocking)
        self._arrived: dict[Path, _Arrived] = {}
        self._staged: dict[Path, _Staged] = {}
        self._named: dict[Path, tuple[str | None, frozenset[bytes]]] = {}

    def forget(self, task: Path) -> None:
        """The task's work copies are gone."""
        self.trees.forget(task)
        known: MutableMapping[Path, Any]
        for known in (self._arrived, self._staged, self._named):
            for own in [own for own in known if own.is_relative_to(task)]:
                del known[own]

    async def take(self, places: Places, record: Record, largest: int) -> Look:
        """
        largest: bytes; changed files above that are named and not read.

        Raises:
            HostError: `conflict`, it cannot be read, with the reason.
        """
        return await self._own.again(places, partial(self._look, places, record, largest))

    async def _look(self, places: Places, record: Record, largest: int, depth: int = 0) -> Look:
        await self._own.set_up(places, record)
        found = await self._looked(places, record)
        head, staging = found.refs.head, None
        if found.digest is not None:
            staging = await self._staging(places, record, found.digest, head)
        links = await self._links(places, record, head, staging, largest, depth)
        added = frozenset() if staging is None else staging.added | staging.conflicts
        commits = {name: link.commit for name, link in links.items()}
        files = await self.trees.look(places, head, added, commits, largest)
        return Look(
            places.seen,
            record,
            found.refs,
            head,
            files.tree,
            files.large,
            found.digest,
            staging,
            links,
            files.since,
        )

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
        last = self._named.get(places.own)
        if last is None or last[0] != head:
            names: list[bytes] = []
            if head is not None:
                listed = await self._git.run("ls-tree", "-r", "-z", git_dir=places.repo, operands=[head])
                names = gitlinks(listed.out)
            last = self._named[places.own] = head, frozenset(names)
        wanted = last[1] if staging is None else last[1] | staging.links.keys()
        if not wanted or depth >= DEEPEST:
            return {}
        folders = await self._blocking.call(git_folders, places.copy, places.inside, wanted)
        found = {}
        for path, git_dir in folders.items():
            inner = places.inner("/".join(filter(None, (places.inside, _text(path)))), _text(git_dir))
            try:
                its = inner_record(record, git_dir)
                seen = await self._own.again(inner, partial(self._look, inner, its, largest, depth + 1))
                if seen.head is not None:
                    clean = await self._own.committed(inner, seen.head)
                    dirty = seen.tree != clean or bool(seen.large)
                    dirty = dirty or any(link.dirty for link in seen.links.values())
                    found[path] = Link(seen.head, dirty, seen.tree)
            except (HostError, OSError) as error:
                # It counts as being where the copy's own commit says.
                log.warn("{path} in {copy}: {error}", path=path, copy=places.copy.name, error=str(error))
        return found

    async def _looked(self, places: Places, record: Record) -> _Arrived:
        """The copy's commits, brought here when they are not."""
        known = self._arrived.get(places.own)
        if known is not None and known.repository != _identity(places.repo):
            known = None
        for last in (False, True):
            try:
                refs, digest = await self._blocking.call(_see, places, known.named if known else None)
                if known is None or refs != known.named:
                    await self._own.init(places.view, object_form(record))
                    await self._own.bring(places, lines_of(refs))
                    arrived = (await self._own.arrived(places, refs)).refs
                    known = _Arrived(refs, arrived, None, _identity(places.repo))
                    if arrived.head is not None:
                        await self._git.run("update-ref", git_dir=places.repo, operands=[KNOWN, arrived.head])
                    self._arrived[places.own] = known
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
        last = self._staged.get(places.own)
        if last is None or (last.digest, last.head) != (digest, head):
            tree = head or empty_tree(object_form(record))
            last = _Staged(digest, head, await compare(self._git, places.repo, places.index, tree))
            self._staged[places.own] = last
        return last.staging


def _identity(repo: Path) -> tuple[int, int]:
    """By what a repository is told from one that was made anew: its configuration is written once, and the
    number of a file alone is used again."""
    found = (repo / "config").stat()
    return found.st_ino, found.st_ctime_ns


def _see(places: Places, known: Refs | None) -> tuple[Refs, bytes | None]:
    """Read the copy's refs, make its view unless they are the known ones, and take its index apart."""
    places.view.mkdir(mode=0o700)
    refs = take_git(places.copy, places.view, places.git, known=known)
    index = places.view / "index"
    if not index.exists():
        return refs, None
    index.replace(places.index)
    return refs, digest(places.index)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
