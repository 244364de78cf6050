"""A repository of its own with its files checked out, made from a mirror: a work copy, or a submodule in one.

git writes the files as the container's user and with none of the daemon's rights, since what the repository
holds is a stranger's. Its filters are not defined here, so that none runs. The objects are copied meanwhile:
git reads them from the mirror until they are there.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.blocking import Blocking
from uaihost.interfaces import Say
from uaihost.wire.reasons import Reason
from uaihost.workspaces.git_folder import Contents, Owner, alternates, copy_objects, write
from uaihost.workspaces.progress import ProgressLines
from uaihost.workspaces.safe_git import Git, GitFailed

log = Logger()

# Seconds: a tree of some 100,000 files on a slow disk.
_CHECKOUT = 1800.0
# Files are written by several processes where there are enough of them.
_PARALLEL = (
    f"checkout.workers={max(2, min(os.cpu_count() or 2, 8))}",
    "checkout.thresholdForParallelism=100",
)

FILE = 0o100644
PROGRAM = 0o100755
GITLINK = 0o160000


@attrs.frozen
class Item:
    """A file or submodule of a commit. oid: a blob's, a submodule's commit."""

    mode: int
    oid: str
    path: bytes


class Checkouts:
    """Makes repositories with files, for the container's user."""

    def __init__(self, git: Git, blocking: Blocking, owner: Owner) -> None:
        self._git = git
        self._blocking = blocking
        self.owner = owner

    async def make(
        self, top: Path, git_dir: Path, contents: Contents, mirror: Path, say: Say, saved: Path | None = None
    ) -> list[Item]:
        """Check `contents` out in the folder `top` of the container's user; gives what the commit holds,
        or nothing when it has neither submodules nor attributes.

        git_dir: where its repository is to be; it does not exist. mirror: where the objects are.
        saved: a repository that has the commit, when the mirror lacks it; only that commit is taken.

        Raises:
            GitFailed: it did not work; something half-made is left.
        """
        await self._blocking.call(write, git_dir, contents)
        borrowing = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": alternates(mirror)}
        if saved is not None:
            await self._git.run(
                "fetch", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--quiet", "--",
                git_dir=git_dir, operands=[str(saved), contents.commit], protocols=["file"], extra=borrowing,
            )  # fmt: skip
        await self._blocking.call(self.owner.give_all, git_dir)
        await together(
            [
                self._write_files(top, git_dir, borrowing, say),
                self._blocking.call(copy_objects, mirror, git_dir, self.owner),
            ]
        )
        if not await self._blocking.call(_names_any, git_dir / "index", (b".gitmodules", b".gitattributes")):
            return []
        listed = await self._git.run(
            "ls-tree", "-r", "-z", "--full-tree", "--end-of-options", git_dir=git_dir,
            operands=[contents.commit],
        )  # fmt: skip
        return _parsed(listed.out)

    async def _write_files(self, top: Path, git_dir: Path, borrowing: dict[str, str], say: Say) -> None:
        """Fill the index and the folder `top`."""
        words = ("read-tree", "-v", "--reset", "-u", "--end-of-options", "HEAD")
        extra = {**borrowing, "GIT_PROGRESS_DELAY": "1"}
        on_err = ProgressLines(say, Reason.COPYING).feed
        user = (self.owner.uid, self.owner.gid)
        # Relative, because that user may not be allowed to look at the folders above.
        inside = Path(_relative(git_dir, top))
        if self._git.can_be(self.owner.uid):
            try:
                await self._git.run(
                    *words, git_dir=inside, work_tree=Path(), cwd=top, user=user,
                    settings=_PARALLEL, extra=extra, on_err=on_err, timeout=_CHECKOUT,
                )  # fmt: skip
                return
            except GitFailed as failed:
                if not failed.text.startswith("setpriv:"):
                    raise
                log.warn("files are checked out by the daemon's user: {error}", error=failed.last_line)
        await self._git.run(
            *words, git_dir=git_dir, work_tree=top,
            settings=_PARALLEL, extra=extra, on_err=on_err, timeout=_CHECKOUT,
        )  # fmt: skip
        await self._blocking.call(self.owner.give_all, top)
        # Their new owner makes the files look changed.
        await self._git.run(
            "update-index", "-q", "--refresh", git_dir=git_dir, work_tree=top, extra=borrowing, fine=(0, 1)
        )
        await self._blocking.call(self.owner.give, git_dir / "index")

    async def blobs(self, git_dir: Path, oids: Sequence[str], largest: int) -> list[bytes]:
        """The content of each blob; empty for one that is larger than `largest` bytes or none."""
        asked = b"".join(oid.encode("ascii") + b"\n" for oid in oids)
        checked = await self._git.run(
            "cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)",
            git_dir=git_dir, stdin=asked,
        )  # fmt: skip
        fits = [
            words[0]
            for line in checked.out.decode("ascii").splitlines()
            if len(words := line.split(" ")) == 3 and words[1] == "blob" and int(words[2]) <= largest
        ]
        found = await self._git.run(
            "cat-file", "--batch=%(objectname) %(objectsize)", git_dir=git_dir,
            stdin=b"".join(oid.encode("ascii") + b"\n" for oid in fits),
        )  # fmt: skip
        contents: dict[str, bytes] = {}
        place = 0
        while place < len(found.out):
            end = found.out.index(b"\n", place)
            oid, size = found.out[place:end].decode("ascii").split(" ")
            contents[oid] = found.out[end + 1 : end + 1 + int(size)]
            place = end + 1 + int(size) + 1
        return [contents.get(oid, b"") for oid in oids]


async def together(works: Sequence[Awaitable[Any]]) -> None:
    """Run all at once and to their end, then raise the first failure."""
    await all_of(*works)


async def all_of(*works: Awaitable[Any]) -> list[Any]:
    """The results of all, which run at once and to their end; or the first failure is raised."""
    started = [Deferred.fromCoroutine(_awaited(work)) for work in works]
    results = []
    for success, value in await DeferredList(started, consumeErrors=True):
        if not success:
            assert isinstance(value, Failure)
            value.raiseException()
        results.append(value)
    return results


async def _awaited(work: Awaitable[Any]) -> object:
    return await work


def _names_any(index: Path, names: Sequence[bytes]) -> bool:
    """Whether one of the files in the index could have one of these names: paths are there as they are, each
    with a NUL behind it (gitformat-index(5), version 2)."""
    content = index.read_bytes()
    return any(name + b"\0" in content for name in names)


def _parsed(listed: bytes) -> list[Item]:
    """`ls-tree -r -z`: mode, type and object, then a tab and the path."""
    items = []
    for line in listed.split(b"\0"):
        if line:
            meta, _, path = line.partition(b"\t")
            mode, _, oid = meta.decode("ascii").split(" ")
            items.append(Item(int(mode, 8), oid, path))
    return items


def _relative(path: Path, start: Path) -> str:
    """`path` as seen from the folder `start`, with neither `.` nor a link resolved."""
    up = 0
    while not path.is_relative_to(start):
        start = start.parent
        up += 1
    return "/".join([".."] * up + list(path.relative_to(start).parts))
