"""The daemon's bare repository of every repository that tasks use: fetched, never cloned twice.

A mirror holds the remote's branches as refs/remotes/origin/*, its default branch as refs/remotes/origin/HEAD,
its tags, and, as refs/heads/* and refs/uai/*, the work that tasks left behind. It is never pruned of objects:
work copies being read borrow from it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.safe_git import NETWORK, Git, GitFailed, ProgressLines, clone_error
from uaihost.workspaces.urls import Repository

log = Logger()

_ORIGIN = "refs/remotes/origin/"
# Seconds; only names are asked for.
_ASK = 120.0


@attrs.frozen
class Mirror:
    """A mirror that was just fetched. default_branch and head: the remote's, and the commit it is on."""

    path: Path
    default_branch: str
    head: str


class Mirrors:
    """All mirrors, in the folder `folder`."""

    def __init__(self, git: Git, folder: Path, blocking: Blocking) -> None:
        self._git = git
        self._folder = folder
        self._blocking = blocking
        self._trash = Trash(folder / ".trash")
        self._locks: dict[str, DeferredLock] = {}

    def path(self, key: str) -> Path:
        return self._folder / f"{key}.git"

    def lock(self, key: str) -> DeferredLock:
        """Held by whoever changes the mirror or copies its files."""
        return self._locks.setdefault(key, DeferredLock())

    async def fetch(self, repository: Repository, on_progress: Callable[[str], None]) -> Mirror:
        """The mirror, as new as the remote is now; made if there is none. The caller holds its lock.

        A mirror that is damaged is moved aside and made anew; the saved work that can still be read is
        taken over, and if there was any the old one is kept.

        Raises:
            HostError: `clone_failed`, with the reason and what to do.
        """
        path = self.path(repository.key)
        try:
            default, commit = await self._ask(repository)
            if not path.exists():
                await self._make(repository, on_progress)
            else:
                try:
                    await self._update(path, repository, on_progress)
                except GitFailed as failed:
                    if not await self.is_damaged(path, failed):
                        raise
                    await self.rebuild(repository, on_progress)
            return await self._settled(path, repository, default, commit)
        except GitFailed as failed:
            raise clone_error(failed, repository.display) from None

    async def rebuild(self, repository: Repository, on_progress: Callable[[str], None]) -> None:
        """Put a new mirror in the place of a damaged one. The caller holds its lock."""
        path = self.path(repository.key)
        aside = next(
            place
            for number in range(1, 1 << 20)
            if not (place := self._folder / f"{repository.key}.damaged-{number}").exists()
        )
        path.rename(aside)
        on_progress(f"The cache of {repository.display} is damaged; it is made anew")
        log.warn("mirror of {url} is damaged, made anew", url=repository.display)
        try:
            await self._make(repository, on_progress)
        except BaseException:
            if not path.exists():
                aside.rename(path)
            raise
        if not await self._blocking.call(_has_saved_work, aside):
            await self._blocking.call(self._trash.remove, aside)
            return
        for spec in ("+refs/heads/*:refs/heads/*", "+refs/uai/*:refs/uai/*"):
            try:
                await self._git.run(
                    "fetch", "--no-tags", "--no-write-fetch-head", "--quiet", "--",
                    git_dir=path, operands=[str(aside), spec], protocols=["file"],
                )  # fmt: skip
            except GitFailed as failed:
                log.warn("saved work of {url}: {error}", url=repository.display, error=str(failed))
        on_progress(f"It held saved work; the damaged cache is kept as {aside}")
        log.warn("the damaged mirror of {url} is kept as {aside}", url=repository.display, aside=str(aside))

    async def commit(self, path: Path, name: str) -> str | None:
        """The commit that the ref `name` is on; None when there is no such ref."""
        found = await self._git.line(
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            git_dir=path,
            operands=[f"{name}^{{commit}}"],
        )
        return found or None

    async def default(self, path: Path) -> str | None:
        """The commit of the remote's default branch, as last fetched."""
        return await self.commit(path, f"{_ORIGIN}HEAD")

    async def is_ancestor(self, path: Path, older: str, newer: str) -> bool:
        found = await self._git.run(
            "merge-base", "--is-ancestor", git_dir=path, operands=[older, newer], fine=(0, 1)
        )
        return found.status == 0

    async def _ask(self, repository: Repository) -> tuple[str | None, str | None]:
        """The remote's default branch and its HEAD commit, each None when it does not say."""
        finished = await self._git.run(
            "ls-remote", "--symref", "--",
            operands=[repository.url, "HEAD"], protocols=[repository.protocol], timeout=_ASK,
        )  # fmt: skip
        default = commit = None
        for line in finished.out.decode("utf-8", "replace").splitlines():
            value, _, name = line.partition("\t")
            if name == "HEAD" and value.startswith("ref: refs/heads/"):
                default = value.removeprefix("ref: refs/heads/")
            elif name == "HEAD":
                commit = value
        return default, commit

    async def _make(self, repository: Repository, on_progress: Callable[[str], None]) -> None:
        path = self.path(repository.key)
        beside = path.with_suffix(".new")
        await self._blocking.call(self._trash.remove, beside)
        try:
            await self._git.run("init", "--quiet", "--bare", "--template=", "--", operands=[str(beside)])
            await self._update(beside, repository, on_progress)
        except BaseException:
            await self._blocking.call(self._trash.remove, beside)
            raise
        beside.rename(path)

    async def _update(self, path: Path, repository: Repository, on_progress: Callable[[str], None]) -> None:
        # Tags given by --tags are not pruned, and --force lets them move as the remote moved them.
        await self._git.run(
            "fetch", "--prune", "--tags", "--force", "--no-write-fetch-head", "--no-auto-maintenance",
            "--progress", "--",
            git_dir=path, operands=[repository.url, f"+refs/heads/*:{_ORIGIN}*"],
            protocols=[repository.protocol], timeout=NETWORK, on_err=ProgressLines(on_progress).feed,
        )  # fmt: skip

    async def _settled(
        self, path: Path, repository: Repository, default: str | None, commit: str | None
    ) -> Mirror:
        """Remember the default branch; where the remote names none, choose as git clone would."""
        listed = await self._git.run(
            "for-each-ref", "--format=%(objectname) %(refname)", git_dir=path, operands=[_ORIGIN]
        )
        branches = {
            name.removeprefix(_ORIGIN): oid
            for oid, _, name in (line.partition(" ") for line in listed.out.decode().splitlines())
            if name != f"{_ORIGIN}HEAD"
        }
        if not branches:
            raise HostError(
                ErrorCode.CLONE_FAILED,
                f"{repository.display} is empty or no git repository; check the address, or push a first "
                "commit to it",
            )
        likely = [
            name for name in (default, "main", "master", *branches) if name is not None and name in branches
        ]
        same = [name for name in likely if branches[name] == commit]
        chosen = likely[0] if default in branches or not same else same[0]
        await self._git.run("symbolic-ref", git_dir=path, operands=[f"{_ORIGIN}HEAD", f"{_ORIGIN}{chosen}"])
        return Mirror(path, chosen, branches[chosen])

    async def is_damaged(self, path: Path, failed: GitFailed) -> bool:
        """Whether the fault is the mirror's: the remote may be the damaged one, or a name sound like it."""
        if not failed.corrupt:
            return False
        try:
            await self._git.run("fsck", "--no-dangling", "--no-progress", git_dir=path)
        except GitFailed:
            return True
        return False


def _has_saved_work(path: Path) -> bool:
    """Whether there are refs of ours, read without git, which may no longer understand the folder."""
    try:
        packed = (path / "packed-refs").read_bytes()
    except OSError:
        packed = b""
    if b" refs/heads/" in packed or b" refs/uai/" in packed:
        return True
    return any(found.is_file() for name in ("heads", "uai") for found in (path / "refs" / name).rglob("*"))
