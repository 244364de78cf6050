"""Making a task's work copy: a clone of its own, which shares nothing with the mirror or with other tasks.

No worktrees, no hard links, no alternates: each of those would let an agent reach what is not its own.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import attrs
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Doing, Say
from uaihost.wire.reasons import Reason
from uaihost.workspaces.branches import checked
from uaihost.workspaces.checkouts import Checkouts, Item
from uaihost.workspaces.faults import reason
from uaihost.workspaces.git_folder import Contents, Owner
from uaihost.workspaces.included import include
from uaihost.workspaces.lfs import Pointers
from uaihost.workspaces.mirrors import Mirror, Mirrors
from uaihost.workspaces.places import Places, Record
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.submodules import Submodules
from uaihost.workspaces.urls import Repository

log = Logger()


@attrs.frozen
class Identity:
    """Whose name the commits of a task carry."""

    name: str
    email: str


@attrs.frozen
class WorkCopy:
    """A project's work copy. path: of the folder on the host, for the container; base: the commit that the
    default branch was on when it was made; head: the one that the task's branch was on then; notes: for
    people, what it lacks and how to get that, when it was made just now."""

    path: str
    base: str
    head: str
    notes: tuple[str, ...] = ()


class Vault(Protocol):
    """Saved work of tasks that are gone (workspaces.vault)."""

    async def commit(self, key: str, branch: str) -> str | None:
        """The commit of the saved branch of the repository `key`; None when nothing is saved."""

    def path(self, key: str) -> Path:
        """The repository with the saved work of `key`."""


# Commits that are made for a task whose owner gave no name.
NOBODY = Identity("uaihost", "uaihost@localhost")


class Copies:
    """Makes work copies, for the container's user `uid`, `gid`."""

    def __init__(
        self,
        git: Git,
        mirrors: Mirrors,
        trash: Trash,
        blocking: Blocking,
        uid: int,
        gid: int,
        vault: Vault | None = None,
    ) -> None:
        self._git = git
        self._mirrors = mirrors
        self._trash = trash
        self._blocking = blocking
        self._vault = vault
        self._owner = Owner(uid, gid)
        self._checkouts = Checkouts(git, blocking, self._owner)
        self._submodules = Submodules(git, mirrors, self._checkouts, trash, blocking)
        self._pointers = Pointers(git, self._checkouts, blocking)

    async def prepare(
        self, places: Places, repository: Repository, branch: str, identity: Identity | None, say: Say
    ) -> WorkCopy:
        """The work copy on `branch`; one that exists is returned as it is, a half-made one is made again.

        The branch is the saved or the remote one of that name, else it starts at the default branch.

        Raises:
            HostError: `clone_failed`; `conflict` when the copy that exists is of something else.
        """
        checked(branch)
        found = await self._blocking.call(_existing, places, repository, branch)
        if found is not None:
            return found
        for last in (False, True):
            try:
                return await self._make(places, repository, branch, identity or NOBODY, say)
            except GitFailed as failed:
                if last or not await self._mirrors.heal(repository, failed, say):
                    raise _failed(repository, failed) from None
        raise AssertionError("the second try returns or raises")

    async def _make(
        self, places: Places, repository: Repository, branch: str, identity: Identity, say: Say
    ) -> WorkCopy:
        await self._blocking.call(self._start_anew, places)
        top = places.half_made
        try:
            kept = None if self._vault is None else await self._vault.commit(repository.key, branch)
            async with self._mirrors.fetched(repository, say) as mirror:
                head, saved = await self._start(mirror, repository.key, branch, kept)
                contents = _contents(mirror, repository, branch, head, identity)
                say(Doing(Reason.COPYING, f"Copying {repository.display}"))
                items = await self._checkouts.make(top, top / ".git", contents, mirror.path, say, saved)
            inner, notes = await self._submodules.fill(top, repository, items, contents, say)
            notes += await self._also(top, repository, items)
            record = Record(
                repository.key, repository.display, branch, mirror.head, head,
                identity.name, identity.email, tuple(inner),
            )  # fmt: skip
            await self._blocking.call(record.store, places.record)
        except BaseException:
            with suppress(OSError):
                await self._blocking.call(self._trash.remove, top)
            raise
        places.land()
        return WorkCopy(str(places.copy), mirror.head, head, tuple(notes))

    async def _start(
        self, mirror: Mirror, key: str, branch: str, kept: str | None
    ) -> tuple[str, Path | None]:
        """The commit to start on, and the repository that has it when it is saved work. Where the saved and
        the remote branch went different ways the saved one wins, since the copy has the other as
        origin/<branch>.

        kept: the commit of the saved branch.
        """
        remote = mirror.branch(branch)
        if kept is None or self._vault is None:
            return remote or mirror.head, None
        if not await self._mirrors.holds(mirror.path, kept):
            return kept, self._vault.path(key)
        if remote and await self._mirrors.is_ancestor(mirror.path, kept, remote):
            return remote, None
        return kept, None

    async def _also(self, top: Path, repository: Repository, items: list[Item]) -> list[str]:
        """What is done once the files are there; none of it keeps the copy from being one."""
        notes = []
        try:
            notes += await self._pointers.notes(top, items)
            if repository.kind == "local":
                checkout = Path(repository.url)
                notes += await include(self._git, self._blocking, self._trash, checkout, top, self._owner)
        except (GitFailed, HostError, OSError) as error:
            log.warn("{url}: {error}", url=repository.display, error=str(error))
            notes.append(f"Files that git does not keep were left out: {error}")
        return notes

    def _start_anew(self, places: Places) -> None:
        self._trash.remove(places.own)
        places.own.mkdir(mode=0o700, parents=True)
        places.half_made.mkdir(mode=0o755)
        self._owner.give(places.half_made)


def _existing(places: Places, repository: Repository, branch: str) -> WorkCopy | None:
    found = Record.load(places.record)
    there = os.path.lexists(places.copy)
    if found is not None and there and places.copy.is_dir() and not places.copy.is_symlink():
        if (found.key, found.branch) != (repository.key, branch):
            raise HostError(
                ErrorCode.CONFLICT,
                f"the task already has a work copy of {found.display} on {found.branch!r} in this place; "
                "take the task down first",
            )
        return WorkCopy(str(places.copy), found.base, found.head)
    if there:
        raise HostError(
            ErrorCode.CONFLICT, f"{places.copy} holds files of unknown origin; move them away and try again"
        )
    return None


def _contents(mirror: Mirror, repository: Repository, branch: str, head: str, identity: Identity) -> Contents:
    name, email = _one_line(identity.name), _one_line(identity.email)
    settings = {
        "remote.origin.url": repository.url,
        "remote.origin.fetch": "+refs/heads/*:refs/remotes/origin/*",
        "user.name": name,
        "user.email": email,
        "push.autoSetupRemote": "true",
    }
    if mirror.branch(branch) is not None:
        settings |= {f"branch.{branch}.remote": "origin", f"branch.{branch}.merge": f"refs/heads/{branch}"}
    return Contents(
        mirror.refs, branch, head, mirror.default_branch, settings, repository.display, f"{name} <{email}>"
    )


def _failed(repository: Repository, failed: GitFailed) -> HostError:
    return HostError(
        ErrorCode.CLONE_FAILED, f"no work copy of {repository.display} can be made: {reason(failed)}"
    )


def _one_line(text: str) -> str:
    """A name as a commit can carry it: git refuses line ends and angle brackets in it."""
    kept = "".join(" " if ord(character) < 32 else character for character in text if character not in "<>")
    return kept.strip().lstrip("-") or "uaihost"
