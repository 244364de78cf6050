"""The folders of a task that taskUp makes and clears itself: all but the work copies' content."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from uaihost.blocking import Blocking
from uaihost.paths import Folders
from uaihost.workspaces.removal import Trash


class TaskPlaces:
    """uid, gid: the container's user, who owns the run folder."""

    def __init__(self, folders: Folders, blocking: Blocking, uid: int, gid: int) -> None:
        self._folders = folders
        self._blocking = blocking
        self._uid = uid
        self._gid = gid
        self._trash = Trash(folders.tasks / ".cleared")

    async def make(self, task_id: str, *, fresh: bool) -> None:
        """The folder of attachments, and the run folder; `fresh`: without what an earlier container left."""
        await self._blocking.call(self._make, task_id, fresh)

    async def slugs(self, task_id: str) -> list[str]:
        """Of the work copies that are there."""
        return await self._blocking.call(_folders_in, self._folders.work(task_id))

    async def clear(self, task_id: str) -> None:
        """Remove all of the task but what was attached; a folder left empty is removed too."""
        await self._blocking.call(self._clear, task_id)

    def _make(self, task_id: str, fresh: bool) -> None:
        run = self._folders.run(task_id)
        if fresh:
            # It could be mistaken for the new container's word.
            self._trash.remove(run)
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(run, self._uid, self._gid)
        attachments = self._folders.attachments(task_id)
        attachments.mkdir(parents=True, exist_ok=True)
        # Read in the container by another user; the data folder above is closed to everybody else.
        attachments.chmod(0o755)

    def _clear(self, task_id: str) -> None:
        task = self._folders.task(task_id)
        attachments = self._folders.attachments(task_id)
        for path in sorted(task.iterdir()) if task.is_dir() else []:
            if path != attachments:
                self._trash.remove(path)
        for folder in (attachments, task):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _folders_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
