"""The room's front door: repositories in, work copies out, changes shown and kept.

Knows nothing of containers, agents or commands; work copies are given to a container by their path.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Say
from uaihost.proofs import Broker
from uaihost.workspaces import task_files, upkeep
from uaihost.workspaces.copies import Copies, Identity, WorkCopy
from uaihost.workspaces.diff import UNREAD, Diffs
from uaihost.workspaces.mirrors import Mirrors
from uaihost.workspaces.places import Folders, Places, mirrors_used, task_folder
from uaihost.workspaces.pushing import Pushed, Pushing
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.restore import Kept, Restoring, kept
from uaihost.workspaces.safe_git import Git
from uaihost.workspaces.saving import Saved, Saving
from uaihost.workspaces.snapshot import Snapshots
from uaihost.workspaces.urls import Repository, parse
from uaihost.workspaces.vault import Vault

__all__ = ["Identity", "Kept", "Pushed", "Saved", "WorkCopy", "Workspaces"]


class Workspaces:
    """All repositories and work copies of this host.

    uid, gid: the containers' user, to whom work copies are given when the daemon is root.
    allowed_roots: the folders in which repositories may be named by their path.
    environment: the daemon's, for the proxy and the authorities of the network.
    broker: has users' credentials.
    """

    def __init__(
        self,
        reactor: Any,
        folders: Folders,
        blocking: Blocking,
        uid: int,
        gid: int,
        allowed_roots: tuple[Path, ...],
        environment: Mapping[str, str] = os.environ,
        broker: Broker | None = None,
    ) -> None:
        self._tasks = folders.tasks
        self._saved = folders.saved
        self._mirror_folder = folders.mirrors
        self._trash = Trash(folders.tasks / ".trash")
        self._blocking = blocking
        self._allowed_roots = allowed_roots
        self._broker = broker
        git = Git(reactor, folders.mirrors / ".git-home", environment)
        self._mirrors = Mirrors(git, folders.mirrors, blocking, folders.saved)
        self._vault = Vault(git, folders.saved, self._mirrors, blocking)
        self._copies = Copies(git, self._mirrors, self._trash, blocking, uid, gid, self._vault)
        self._snapshots = Snapshots(git, folders.mirrors, self._trash, blocking)
        self._saving = Saving(git, self._mirrors, self._vault, self._snapshots, blocking, folders.saved)
        self._pushing = Pushing(git, self._mirrors, self._snapshots)
        self._restoring = Restoring(git, blocking)
        self._diffs = Diffs(git, self._mirrors, self._snapshots, blocking)

    async def prepare(
        self,
        task_id: str,
        slug: str,
        url: str,
        branch: str,
        identity: Identity | None,
        on_progress: Say,
        user_id: str = "",
    ) -> WorkCopy:
        """The task's work copy of `url` on `branch`, made when there is none; repeating it changes nothing.

        on_progress: is given lines for people and what it is at. user_id: whose credentials git may use.

        Raises:
            HostError: `invalid_args`, `clone_failed` or `conflict`, with what to do. Nothing half-made stays.
        """
        places = Places.of(self._tasks, task_id, slug)
        repository = parse(url, allowed_roots=self._allowed_roots)
        async with self._reaching(repository, user_id) as reached, self._snapshots.lock(places):
            return await self._copies.prepare(places, reached, branch, identity, on_progress)

    async def push(self, task_id: str, slug: str, url: str, user_id: str) -> Pushed:
        """Push what the task committed to its branch, as that user; never by force.

        Raises:
            HostError: `not_found`, `conflict` or `unavailable`, with what to do.
        """
        places = Places.of(self._tasks, task_id, slug)
        repository = parse(url, allowed_roots=self._allowed_roots)
        async with self._reaching(repository, user_id) as reached:
            return await self._pushing.push(places, reached)

    async def save(self, task_id: str, slugs: Sequence[str]) -> list[Saved]:
        """Keep everything the task's work copies hold in the vault; a copy that is gone is passed over.

        What the task holds beside them comes last, with an empty slug, when there is any. The container
        should not run any more: what it writes meanwhile may be missed.

        Raises:
            HostError: something could not be kept; then nothing may be removed.
        """
        found = [await self._saving.save(task_id, Places.of(self._tasks, task_id, slug)) for slug in slugs]
        saved = [one for one in found if one is not None]
        task = task_folder(self._tasks, task_id)
        known = {one.slug for one in saved}
        try:
            beside = await self._blocking.call(task_files.keep, task, self._saved, task_id, known)
        except OSError as error:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"what lies beside the task's work copies cannot be kept: {error.strerror}; nothing was "
                f"deleted, it is in {task}",
            ) from error
        return saved if beside is None else [*saved, beside]

    async def kept(self, task_id: str | None = None) -> list[Kept]:
        """Saved work of one task or of all, the newest first."""
        return await self._blocking.call(kept, self._saved, task_id)

    async def restore(self, saved: Kept, target: Path, owner: tuple[int, int] | None = None) -> list[str]:
        """Make the folder `target`, a clone as the work copy was; lines for people.

        Raises:
            HostError: `conflict`, it exists; `unavailable`. Nothing half-made stays.
        """
        return await self._restoring.restore(saved, target, owner)

    async def remove(self, task_id: str) -> None:
        """Delete the task's whole folder: work copies, attachments, run files. To be called after `save`."""
        task = task_folder(self._tasks, task_id)
        self._snapshots.forget(task)
        self._diffs.forget(task)
        await self._blocking.call(self._trash.remove, task)

    async def diff(self, task_id: str, project_id: str, slug: str) -> dict[str, Any]:
        """What the task changed in the project, as one element of taskDiff's `projects`.

        Raises:
            HostError: `not_found`, `conflict` or `too_large`.
        """
        return await self._diffs.diff(Places.of(self._tasks, task_id, slug), project_id)

    async def fingerprint(self, task_id: str) -> str:
        """Differs when the files of the task's work copies, ignored ones aside, or their commits do.

        Raises:
            HostError: `conflict`: one cannot be read.
        """
        task = task_folder(self._tasks, task_id)
        marks = []
        for slug in await self._blocking.call(_slugs, task / "git"):
            places = Places.of(self._tasks, task_id, slug)
            async with self._snapshots.lock(places):
                snapshot = await self._snapshots.take(places, largest=UNREAD)
            large = sorted(name.hex() for name in snapshot.large)
            inner = sorted(f"{name.hex()}={link.tree}" for name, link in snapshot.links.items())
            marks.append(f"{slug} {snapshot.head} {snapshot.tree} {' '.join((*large, *inner))}")
        return hashlib.sha256("\n".join(marks).encode()).hexdigest()

    @asynccontextmanager
    async def _reaching(self, repository: Repository, user_id: str) -> AsyncIterator[Repository]:
        """The repository with what proves who asks for it."""
        if self._broker is None or not user_id or repository.kind == "local":
            yield repository
            return
        async with self._broker.reach(user_id, repository.url) as reach:
            # One without credentials asks as this host does.
            asker = user_id if reach.env else ""
            yield attrs.evolve(repository, asker=asker, reach=reach)

    async def maintain(self) -> None:
        """Put the packs of mirrors together that nothing uses now; each at most once a day."""
        for key in await self._mirrors.known():
            await self._mirrors.maintain(key)

    async def clone(self, url: str, project_id: str, on_progress: Say) -> dict[str, str]:
        """The mirror of `url`, made or fetched: `{path, defaultBranch, head}`.

        Raises:
            HostError: `invalid_args` or `clone_failed`, with what to do.
        """
        repository = parse(url, allowed_roots=self._allowed_roots)
        async with self._mirrors.lock(repository.key):
            mirror = await self._mirrors.fetch(repository, on_progress)
        return {"path": str(mirror.path), "defaultBranch": mirror.default_branch, "head": mirror.head}

    async def idle_mirrors(self) -> dict[str, float]:
        """The keys of mirrors from which no work copy was made and no saved work borrows, with the time of
        their last fetch in seconds since the epoch.
        """

        def idle() -> dict[str, float]:
            used = mirrors_used(self._tasks)
            found = upkeep.last_used(self._mirror_folder)
            return {
                key: at
                for key, at in found.items()
                if key not in used and not upkeep.is_lent(self._mirrors.path(key), self._saved)
            }

        return await self._blocking.call(idle)

    async def remove_mirror(self, key: str) -> bool:
        """Delete a mirror that nothing uses and no saved work borrows from; whether it is gone.

        Raises:
            HostError: it holds saved work of an earlier version, which cannot be brought into the vault.
        """
        await self._vault.adopt(key)
        return await self._mirrors.remove(key)


def _slugs(git: Path) -> list[str]:
    """The task's work copies, each of which has a folder of the daemon's own there; none is no error."""
    return (
        sorted(path.name for path in git.iterdir() if path.is_dir() and path.name[0] != ".")
        if git.is_dir()
        else []
    )
