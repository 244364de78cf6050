"""The daemon's bare repository of every repository that tasks use: fetched, never cloned twice.

A mirror holds what the remote has and nothing else: its branches as refs/remotes/origin/*, its default
branch as refs/remotes/origin/HEAD, and its tags. Objects never leave it, even when the remote has them no
more: saved work and work copies being read borrow from it. Whoever changes a mirror holds its lock; whoever
reads its files says that it is in use, which keeps it from being repacked, rebuilt or removed meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Doing, Say
from uaihost.wire.reasons import Reason
from uaihost.workspaces import upkeep
from uaihost.workspaces.faults import clone_error, is_unreachable, reason
from uaihost.workspaces.locks import Locks
from uaihost.workspaces.offers import ORIGIN, TAGS, Offer, offered
from uaihost.workspaces.progress import ProgressLines
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.safe_git import NETWORK, Git, GitFailed
from uaihost.workspaces.urls import Repository

log = Logger()

# Seconds for the names alone; less where the mirror is a way out when nobody answers.
_ASK = 120.0
_ASK_AGAIN = 25.0


@attrs.frozen
class Mirror:
    """A mirror that was just fetched. default_branch and head: the remote's, and the commit it is on;
    refs: name to object, the remote's branches (below refs/remotes/origin/) and tags."""

    path: Path
    default_branch: str
    head: str
    refs: Mapping[str, str]

    def branch(self, name: str) -> str | None:
        """The commit of the remote's branch `name`."""
        return self.refs.get(ORIGIN + name)


class Mirrors:
    """All mirrors, in the folder `folder`.

    saved: the folder of repositories that may borrow objects from mirrors. now: seconds since the epoch.
    """

    def __init__(
        self,
        git: Git,
        folder: Path,
        blocking: Blocking,
        saved: Path | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._git = git
        self._folder = folder
        self._blocking = blocking
        self._saved = saved
        self._now = now
        self._trash = Trash(folder / ".trash")
        self._locks = Locks(git.reactor, folder / ".locks")
        self._cleared: set[str] = set()
        self._repacking: dict[str, Deferred[None]] = {}

    def path(self, key: str) -> Path:
        return self._folder / f"{key}.git"

    def lock(self, key: str) -> AbstractAsyncContextManager[None]:
        """Held by whoever changes the mirror, in this process or another. A repack gives way."""
        self._give_way(key)
        return self._locks.exclusive(f"{key}.change")

    def use(self, key: str) -> AbstractAsyncContextManager[None]:
        """Held by whoever reads the mirror's files, at once with others, while nothing of it may vanish.

        Taken with the lock held, or the mirror may be another one by then.
        """
        return self._locks.shared(f"{key}.use")

    @asynccontextmanager
    async def fetched(
        self, repository: Repository, say: Say, want: str | None = None
    ) -> AsyncIterator[Mirror]:
        """The mirror, as new as the remote is now, in use until the block ends.

        want: a commit that it must have, although perhaps no branch or tag leads to it any more.

        Raises:
            HostError: as `fetch`; GitFailed: the remote does not give the commit.
        """
        lock = self.lock(repository.key)
        await lock.__aenter__()
        try:
            mirror = await self.fetch(repository, say)
            if want is not None and not await self.holds(mirror.path, want):
                await self._bring(repository, want, say)
            using = self.use(repository.key)
            await using.__aenter__()
        finally:
            await lock.__aexit__(None, None, None)
        try:
            yield mirror
        finally:
            await using.__aexit__(None, None, None)

    async def fetch(self, repository: Repository, say: Say) -> Mirror:
        """The mirror, as new as the remote is now; made if there is none. The caller holds its lock.

        Where nobody answers and there is a mirror, that is what there is, and a line says how old it is.
        A mirror that is damaged is made anew.

        Raises:
            HostError: `clone_failed`, with the reason and what to do.
        """
        path = self.path(repository.key)
        known = path.is_dir()
        say(Doing(Reason.CLONING, f"Asking {repository.display} what is new"))
        try:
            await self._blocking.call(self._clear, repository.key)
            offer = await self._ask(repository, _ASK_AGAIN if known else _ASK)
            refs = await self._refs_if_new(path, offer) if known else None
            if not known:
                await self._make(repository, say)
            elif refs is None:
                await self._renew(path, repository, say)
            mirror = await self._settled(path, repository, offer, refs)
            await self._blocking.call(upkeep.stamp, path, repository.display, self._now(), repository.asker)
            return mirror
        except (GitFailed, HostError) as error:
            if known and is_unreachable(error):
                return await self._as_it_is(path, repository, error, say)
            if isinstance(error, GitFailed):
                if known and error.refused:
                    await self._blocking.call(upkeep.withdraw, path, repository.asker)
                raise clone_error(error, repository.display) from None
            raise

    async def heal(self, repository: Repository, failed: GitFailed, say: Say) -> bool:
        """Make the mirror anew if `failed` was its fault; whether it was. The caller does not use it.

        Raises:
            HostError: `clone_failed`, it cannot be made anew.
        """
        path = self.path(repository.key)
        async with self.lock(repository.key):
            if not await self._is_damaged(path, failed):
                return False
            try:
                await self._rebuild(repository, say)
            except GitFailed as again:
                raise clone_error(again, repository.display) from None
            return True

    async def holds(self, path: Path, commit: str) -> bool:
        """Whether the repository `path` has `commit`."""
        found = await self._git.run(
            "cat-file", "-e", git_dir=path, operands=[f"{commit}^{{commit}}"], fine=(0, 1, 128)
        )
        return found.status == 0

    async def commit(self, path: Path, name: str) -> str | None:
        """The commit that the ref `name` is on; None when there is no such ref."""
        found = await self._git.line(
            "rev-parse", "--verify", "--quiet", "--end-of-options",
            git_dir=path, operands=[f"{name}^{{commit}}"],
        )  # fmt: skip
        return found or None

    async def default(self, path: Path) -> str | None:
        """The commit of the remote's default branch, as last fetched."""
        return await self.commit(path, f"{ORIGIN}HEAD")

    async def is_ancestor(self, path: Path, older: str, newer: str) -> bool:
        found = await self._git.run(
            "merge-base", "--is-ancestor", git_dir=path, operands=[older, newer], fine=(0, 1)
        )
        return found.status == 0

    async def maintain(self, key: str) -> bool:
        """Put the many small packs of a mirror together, at most once a day and while nothing uses it.

        Runs at the lowest priority, and gives way to whoever wants the mirror. Whether it was done.
        """
        path = self.path(key)
        async with self._locks.at_once(f"{key}.change") as mine, self._locks.at_once(f"{key}.use") as alone:
            if not (mine and alone and await self._blocking.call(upkeep.is_due, path, self._now())):
                return False
            await self._blocking.call(upkeep.clear_all, path)
            work = Deferred.fromCoroutine(upkeep.repack(self._git, path))
            self._repacking[key] = work
            try:
                await work
            except CancelledError:
                return False
            except GitFailed as failed:
                log.warn("mirror {path} is not repacked: {error}", path=str(path), error=str(failed))
                return False
            finally:
                del self._repacking[key]
            await self._blocking.call(upkeep.done, path, self._now())
            return True

    async def known(self) -> dict[str, float]:
        """Every mirror's key, and when it was last wanted, in seconds since the epoch."""
        return await self._blocking.call(upkeep.last_used, self._folder)

    async def remove(self, key: str) -> bool:
        """Delete a mirror that nothing uses and no saved work borrows from; whether it is gone."""
        path = self.path(key)
        async with self._locks.at_once(f"{key}.change") as mine, self._locks.at_once(f"{key}.use") as alone:
            if not (mine and alone) or await self._blocking.call(upkeep.is_lent, path, self._saved):
                return False
            await self._blocking.call(self._trash.remove, path)
            return True

    def _give_way(self, key: str) -> None:
        if key in self._repacking:
            self._repacking[key].cancel()

    def _clear(self, key: str) -> None:
        """Once for each mirror: what a daemon that was killed left behind."""
        if key not in self._cleared:
            upkeep.clear_locks(self.path(key), self._now())
            self._cleared.add(key)

    async def _ask(self, repository: Repository, timeout: float) -> Offer:
        finished = await self._git.run(
            "ls-remote", "--symref", "--", operands=[repository.url, "HEAD", "refs/heads/*", f"{TAGS}*"],
            protocols=[repository.protocol], abroad=repository.kind == "local", timeout=timeout,
            settings=repository.reach.settings, extra=repository.reach.env,
        )  # fmt: skip
        return offered(finished.out, finished.truncated)

    async def _refs(self, path: Path) -> dict[str, str]:
        listed = await self._git.run(
            "for-each-ref", "--format=%(objectname) %(refname)", git_dir=path, operands=[ORIGIN, TAGS]
        )
        lines = (line.split(" ", 1) for line in listed.out.decode("utf-8", "surrogateescape").splitlines())
        return {name: oid for oid, name in lines if name != f"{ORIGIN}HEAD"}

    async def _refs_if_new(self, path: Path, offer: Offer) -> dict[str, str] | None:
        """The mirror's refs when they are what the remote offers, so that nothing needs to be fetched."""
        try:
            refs = await self._refs(path)
        except GitFailed:
            return None
        if offer.refs is None:
            return None
        # Tags that the remote has dropped are kept.
        branches = {name for name in refs if name.startswith(ORIGIN)}
        return refs if {**refs, **offer.refs} == refs and branches <= offer.refs.keys() else None

    async def _renew(self, path: Path, repository: Repository, say: Say) -> None:
        try:
            await self._update(path, repository, say)
        except GitFailed as failed:
            if not await self._is_damaged(path, failed):
                raise
            await self._rebuild(repository, say)

    async def _rebuild(self, repository: Repository, say: Say) -> None:
        """Put a new mirror in the place of a damaged one. The caller holds its lock."""
        path = self.path(repository.key)
        async with self._locks.exclusive(f"{repository.key}.use"):
            lent = await self._blocking.call(upkeep.is_lent, path, self._saved)
            aside = await self._blocking.call(upkeep.set_aside, path)
            say(f"The cache of {repository.display} is damaged; it is made anew")
            log.warn("mirror of {url} is damaged, made anew", url=repository.display)
            try:
                await self._make(repository, say)
            except BaseException:
                if not path.exists():
                    aside.rename(path)
                raise
            if not lent:
                await self._blocking.call(self._trash.remove, aside)
                return
            await upkeep.take_over(self._git, self._blocking, aside, path)
            say(f"Saved work borrows from it; the damaged cache is kept as {aside}")
            log.warn(
                "the damaged mirror of {url} is kept as {aside}", url=repository.display, aside=str(aside)
            )

    async def _make(self, repository: Repository, say: Say) -> None:
        path = self.path(repository.key)
        beside = path.with_suffix(".new")
        await self._blocking.call(self._trash.remove, beside)
        try:
            await self._git.run("init", "--quiet", "--bare", "--template=", "--", operands=[str(beside)])
            await self._update(beside, repository, say)
        except BaseException:
            await self._blocking.call(self._trash.remove, beside)
            raise
        beside.rename(path)

    async def _update(self, path: Path, repository: Repository, say: Say) -> None:
        # Tags given by --tags are not pruned, and --force lets them move as the remote moved them.
        for last in (False, True):
            try:
                await self._git.run(
                    "fetch", "--prune", "--tags", "--force", "--no-write-fetch-head",
                    "--no-auto-maintenance", "--progress", "--",
                    git_dir=path, operands=[repository.url, f"+refs/heads/*:{ORIGIN}*"],
                    protocols=[repository.protocol], timeout=NETWORK, on_err=ProgressLines(say).feed,
                    abroad=repository.kind == "local",
                    settings=repository.reach.settings, extra=repository.reach.env,
                )  # fmt: skip
                return
            except GitFailed as failed:
                if last or not failed.locked:
                    raise
                await upkeep.outlive_locks(self._git, self._blocking, path, self._now)

    async def _bring(self, repository: Repository, commit: str, say: Say) -> None:
        await self._git.run(
            "fetch", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--progress", "--",
            git_dir=self.path(repository.key), operands=[repository.url, commit],
            protocols=[repository.protocol], timeout=NETWORK, on_err=ProgressLines(say).feed,
            abroad=repository.kind == "local",
            settings=repository.reach.settings, extra=repository.reach.env,
        )  # fmt: skip

    async def _settled(
        self, path: Path, repository: Repository, offer: Offer, refs: dict[str, str] | None = None
    ) -> Mirror:
        """Remember the default branch; where the remote names none, choose as git clone would."""
        refs = refs or await self._refs(path)
        branches = {name.removeprefix(ORIGIN): oid for name, oid in refs.items() if name.startswith(ORIGIN)}
        if not branches:
            raise HostError(
                ErrorCode.CLONE_FAILED,
                f"{repository.display} is empty or no git repository; check the address, or push a first "
                "commit to it",
            )
        likely = [name for name in (offer.default, "main", "master", *branches) if name in branches]
        same = [name for name in likely if branches[name] == offer.commit]
        chosen = likely[0] if offer.default in branches or not same else same[0]
        assert chosen is not None
        if await self._blocking.call(upkeep.default_branch, path) != chosen:
            await self._git.run("symbolic-ref", git_dir=path, operands=[f"{ORIGIN}HEAD", f"{ORIGIN}{chosen}"])
        return Mirror(path, chosen, branches[chosen], refs)

    async def _as_it_is(
        self, path: Path, repository: Repository, error: GitFailed | HostError, say: Say
    ) -> Mirror:
        """The mirror of a remote that does not answer, for one who was given it before."""
        if not await self._blocking.call(upkeep.knows, path, repository.asker):
            why = reason(error) if isinstance(error, GitFailed) else error.message
            raise HostError(
                ErrorCode.CLONE_FAILED,
                f"{repository.display} cannot be fetched: {why}. What others fetched of it is not yours to "
                "see before the server has said so",
            )
        default = await self._blocking.call(upkeep.default_branch, path)
        try:
            mirror = await self._settled(path, repository, Offer(default, None, None))
        except GitFailed as failed:
            raise clone_error(failed, repository.display) from None
        why = reason(error) if isinstance(error, GitFailed) else error.message
        age = upkeep.age(self._now() - await self._blocking.call(upkeep.fetched_at, path))
        say(f"Warning: {repository.display} did not answer ({why}); going on with what was fetched {age} ago")
        log.warn(
            "{url} did not answer: {why}; its mirror is {age} old", url=repository.display, why=why, age=age
        )
        return mirror

    async def _is_damaged(self, path: Path, failed: GitFailed) -> bool:
        """Whether the fault is the mirror's: the remote may be the damaged one, or a name sound like it."""
        if not failed.corrupt:
            return False
        try:
            await self._git.run("fsck", "--no-dangling", "--no-progress", git_dir=path)
        except GitFailed:
            return True
        return False
