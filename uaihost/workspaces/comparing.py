"""Comparing the trees of a work copy, and its index: of files that did not change since the last time, what
git told then is told again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.checkouts import all_of
from uaihost.workspaces.diff_parser import File, parse
from uaihost.workspaces.looks import Look
from uaihost.workspaces.places import Places
from uaihost.workspaces.safe_git import OUTPUT, Git, GitFailed
from uaihost.workspaces.staging import Staging, compare, empty_tree, replaced

log = Logger()

# What a page can show: bytes of hunks in all, files.
TOTAL_LIMIT = 4 << 20
MAX_FILES = 1000
# Bytes: a file larger than this is not compared line by line (core.bigFileThreshold).
LARGE = 1 << 20
# Comparisons and answers that are kept for who asks again, and bytes of hunks in them.
COPIES = 16
KEPT = 16 << 20
# Names that commits changed, of one work copy, that are kept.
_NAMES = 50_000

# Files that changed since the last comparison; with more, all are compared again.
_FEW = 100
# Of git-diff-tree(1): nothing that a repository defines is run.
OPTIONS = ("-r", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color", "--submodule=short")
_SETTINGS = (f"core.bigFileThreshold={LARGE}",)


@attrs.frozen
class Compared:
    """What git told of two trees. whole: whether of all files and all their lines; unstaged: how the copy's
    index, with its digest, differs from the second tree."""

    base: str
    tree: str
    digest: bytes | None
    files: list[File]
    count: int
    whole: bool
    unstaged: Staging | None = None

    @property
    def size(self) -> int:
        """Bytes of hunks."""
        return sum(len(file.hunks or b"") for file in self.files)


class Comparisons:
    """Compares; who calls holds the lock of the work copy."""

    def __init__(self, git: Git, blocking: Blocking) -> None:
        self._git = git
        self._blocking = blocking
        self._last: OrderedDict[Path, Compared] = OrderedDict()
        self._commits: dict[Path, tuple[tuple[str, str | None], frozenset[bytes]]] = {}

    def forget(self, task: Path) -> None:
        """The task's work copies are gone."""
        known: MutableMapping[Path, Any]
        for known in (self._last, self._commits):
            for own in [own for own in known if own.is_relative_to(task)]:
                del known[own]

    async def told(self, places: Places, snapshot: Look, base: str) -> Compared:
        """What git tells now; of files that did not change since the last time, what it told then."""
        last = self._last.pop(places.own, None)
        found = None
        if last is not None and (last.base, last.digest) == (base, snapshot.index_digest):
            try:
                found = await self._since(last, places, snapshot)
            except (GitFailed, ValueError) as error:
                # The last tree may be gone.
                log.debug("all is compared again: {error}", error=error)
        if found is None:
            found, unstaged = await all_of(
                self._compare(snapshot, base), self._against_index(snapshot, places.index)
            )
            found = attrs.evolve(found, unstaged=unstaged)
        if found.whole and found.size <= KEPT:
            self._last[places.own] = found
            while len(self._last) > COPIES or sum(one.size for one in self._last.values()) > KEPT:
                self._last.popitem(last=False)
        return found

    async def _since(self, last: Compared, places: Places, snapshot: Look) -> Compared | None:
        """What is to be told now; None when more changed than the lines of a few files.

        Only names that come or go can make another rename, so that each of the others stands for itself.
        """
        names = await self._changed(last, snapshot)
        known = {file.path: file for file in last.files}
        sources = {file.old_path for file in last.files}
        if len(names) > _FEW or not sources.isdisjoint(names):
            return None
        if any(known[name].status != "modified" for name in names if name in known):
            return None
        if not names:
            return attrs.evolve(last, tree=snapshot.tree)
        found, unstaged = await all_of(
            self._compare(snapshot, last.base, names), self._against_index(snapshot, places.index, names)
        )
        if any(file.status != "modified" for file in found.files):
            return None
        if not found.whole or (unstaged is None) != (last.unstaged is None):
            return None
        for name in names:
            known.pop(name, None)
        known |= {file.path: file for file in found.files}
        told: Compared = attrs.evolve(
            found,
            files=list(known.values()),
            count=len(known),
            unstaged=unstaged and last.unstaged and replaced(last.unstaged, names, unstaged),
        )
        return told

    async def _changed(self, last: Compared, snapshot: Look) -> list[bytes]:
        """The files that are not as in the last tree."""
        if snapshot.tree == last.tree:
            return []
        if snapshot.since is not None and snapshot.since[0] == last.tree:
            return sorted(snapshot.since[1])
        listed = await self._git.run(
            "diff-tree", "-r", "--no-renames", "--name-only", "-z",
            git_dir=snapshot.repo, operands=[last.tree, snapshot.tree],
        )  # fmt: skip
        return listed.out.split(b"\0")[:-1]

    async def _compare(self, snapshot: Look, base: str, paths: Sequence[bytes] = ()) -> Compared:
        found = await self._git.run(
            "diff-tree", *OPTIONS, "-M", "--raw", "--numstat", "--patch", "--unified=3", "-z",
            git_dir=snapshot.repo, settings=_SETTINGS, operands=[base, snapshot.tree], paths=paths,
            limit=OUTPUT + 2 * TOTAL_LIMIT,
        )  # fmt: skip
        if found.truncated and b"\0\0" not in found.out:
            raise HostError(ErrorCode.TOO_LARGE, "too many files changed to list them")
        files, count = await self._blocking.call(parse, found.out, MAX_FILES, complete=not found.truncated)
        whole = not found.truncated and count == len(files)
        return Compared(base, snapshot.tree, snapshot.index_digest, files, count, whole)

    async def committed(self, places: Places, snapshot: Look, base: str) -> frozenset[bytes]:
        """The names of files that commits changed."""
        key = (base, snapshot.head)
        last = self._commits.get(places.own)
        if last is None or last[0] != key:
            head = snapshot.head or empty_tree(_form(base))
            listed = await self._git.run(
                "diff-tree", "-r", "--no-renames", "--name-only", "-z",
                git_dir=snapshot.repo, operands=[base, head],
            )  # fmt: skip
            last = key, frozenset(listed.out.split(b"\0")[:-1])
            self._commits.pop(places.own, None)
            if len(last[1]) <= _NAMES:
                self._commits[places.own] = last
        return last[1]

    async def _against_index(
        self, snapshot: Look, index: Path, paths: Sequence[bytes] = ()
    ) -> Staging | None:
        if snapshot.index_digest is None or snapshot.staging is None:
            return None
        return await compare(self._git, snapshot.repo, index, snapshot.tree, paths)


def _form(oid: str) -> str:
    return "sha1" if len(oid) == 40 else "sha256"
