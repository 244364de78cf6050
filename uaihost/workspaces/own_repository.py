"""The daemon's own repository of a work copy, into which its commits are taken.

Commits come by a fetch from a view: a bare repository of ours whose objects are links to the copy's and
whose refs we wrote. git there sees none of the agent's configuration, and what arrives is verified. Hooks,
filters, textconv, fsmonitor and whatever else a `.git/config` can define are never defined for these runs.

The repository borrows the mirror's objects and goes away with the task.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import attrs

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.git_view import Refs, take_git
from uaihost.workspaces.places import Places, Record
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.upkeep import clear_all

T = TypeVar("T")

# Where fetched work lies in the repository: heads/<branch>, stash/<number>, detached; where all is taken also
# tags/<name>, past/<number>, pending/<name>, index, unmerged.
TAKEN = "refs/copy/"
# The last head that could be read.
KNOWN = "refs/known-head"
# Seconds for fetching all that is new: enough for some GiB.
_READ = 1800.0
# Tries to find the names that keep others from coming; one takes about 20 for one among 100,000.
_TRIES = 200
# Commits before the newest one of the task's branch that are tried in its place.
_OLDER = 20
# Characters of the longer kind of object names.
_SHA256 = 64


@attrs.frozen
class Arrived:
    """What lies in the repository. index, unmerged: trees, where all was taken."""

    refs: Refs
    index: str | None = None
    unmerged: str | None = None


class OwnRepositories:
    """Makes and fills them; who calls holds the lock of the work copy."""

    def __init__(self, git: Git, mirrors: Path, trash: Trash, blocking: Blocking) -> None:
        self._git = git
        self._mirrors = mirrors
        self._trash = trash
        self._blocking = blocking

    async def again(self, places: Places, take: Callable[[], Awaitable[T]]) -> T:
        """What `take` gives; where the repository is found damaged, from a new one.

        Raises:
            HostError: `conflict`, git cannot do it.
        """
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

    async def set_up(self, places: Places, record: Record) -> None:
        """Make the repository where there is none; end what an interrupted run left."""
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
        await self.init(places.repo, object_form(record))
        (places.repo / "info").mkdir(exist_ok=True)
        (places.repo / "objects" / "info").mkdir(exist_ok=True)
        alternates.write_text(lent, encoding="utf-8")

    async def init(self, path: Path, form: str) -> None:
        """An empty repository whose objects are named as in `form`."""
        await self._git.run(
            "init", "--quiet", "--bare", "--template=", f"--object-format={form}", "--", operands=[str(path)]
        )

    @asynccontextmanager
    async def view(self, places: Places, record: Record) -> AsyncIterator[Path]:
        """The copy's own objects and index as a repository of ours. The caller holds the lock.

        Raises:
            HostError: `conflict`, its `.git` cannot be read.
        """
        await self._blocking.call(self._trash.remove, places.view)
        await self.init(places.view, object_form(record))
        try:
            await self._blocking.call(take_git, places.copy, places.view, places.git)
            yield places.view
        finally:
            await self._blocking.call(self._trash.remove, places.view)

    async def bring(self, places: Places, lines: list[tuple[str, str]]) -> None:
        """Fetch what the view is to have by the names of `lines`."""
        packed = "".join(f"{oid} {name}\n" for oid, name in lines)
        await self._blocking.call((places.view / "packed-refs").write_text, packed, encoding="utf-8")
        await self._git.run(
            "fetch", "--prune", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--quiet",
            "--", git_dir=places.repo, operands=[str(places.view), f"+{TAKEN}*:{TAKEN}*"],
            protocols=["file"], timeout=_READ,
        )  # fmt: skip

    async def bring_most(self, places: Places, lines: list[tuple[str, str]]) -> None:
        """As `bring`, without the names that keep others from coming. The first ones are tried first; of the
        very first one the newest of its last commits that can come does.

        Raises:
            GitFailed: not even all at once without those; that is, there are too many of them.
        """
        good: list[tuple[str, str]] = []
        waiting, tries = [lines], 0
        while waiting:
            some = waiting.pop()
            tries += 1
            try:
                await self.bring(places, good + some)
            except GitFailed:
                if tries >= _TRIES:
                    raise
                if len(some) > 1:
                    half = len(some) // 2
                    waiting += [some[half:], some[:half]]
                continue
            good += some
        for oid, name in lines[:1]:
            for older in await self._older(places, oid) if (oid, name) not in good else ():
                try:
                    await self.bring(places, [(older, name), *good])
                    return
                except GitFailed:
                    continue
        if tries > 1:
            await self.bring(places, good)

    async def _older(self, places: Places, oid: str) -> list[str]:
        """The last commits before that one, the newest first."""
        try:
            listed = await self._git.run(
                "rev-list", "--first-parent", f"--max-count={_OLDER + 1}", git_dir=places.view,
                operands=[oid],
            )  # fmt: skip
        except GitFailed:
            return []
        return listed.out.decode("ascii").split()[1:]

    async def arrived(self, places: Places, refs: Refs) -> Arrived:
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
        return Arrived(found, index, unmerged)

    async def committed(self, places: Places, head: str | None) -> str:
        """The tree of a commit, or of nothing."""
        if head is None:
            return (await self._git.run("mktree", git_dir=places.repo)).out.decode("ascii").strip()
        return await self._git.line(
            "rev-parse", "--verify", git_dir=places.repo, operands=[f"{head}^{{tree}}"]
        )


def _numbered(found: dict[str, str]) -> tuple[str, ...]:
    return tuple(found[number] for number in sorted(found, key=int))


def inner_record(record: Record, git_dir: bytes) -> Record:
    """What is known of a repository inside, which is kept in `git_dir`: of a submodule, the mirror it came
    from."""
    for one in record.submodules:
        if git_dir == os.fsencode(one.git_dir):
            return attrs.evolve(record, key=one.key, display=one.display, branch="", head="")
    return attrs.evolve(record, key="", branch="", head="")


def object_form(record: Record) -> str:
    """How the repository names its objects."""
    return "sha256" if len(record.base) == _SHA256 else "sha1"


def lines_of(refs: Refs) -> list[tuple[str, str]]:
    """What has a name in the copy, as it is named here."""
    lines = [(oid, f"{TAKEN}heads/{name}") for name, oid in refs.heads.items()]
    lines += [(oid, f"{TAKEN}stash/{number}") for number, oid in enumerate(refs.stashes)]
    if refs.detached is not None:
        lines.append((refs.detached, f"{TAKEN}detached"))
    return lines
