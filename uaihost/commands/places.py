"""The folders of a task that taskUp makes and clears itself: all but the work copies' content.

Which of them the container sees, and how, is the plan's business (commands.plan).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from uaihost.blocking import Blocking
from uaihost.paths import Folders
from uaihost.workspaces.removal import Trash

# In the control folder: the first process runs nothing of a repository before it is there (shim/init.py).
GATE = "go"


# Sockets in the run folder to which the host listens, by the first process and by the relay.
WORDS = ("init.sock", "relay.sock")


class TaskPlaces:
    """uid, gid: the container's user, who owns the folders that it may write."""

    def __init__(self, folders: Folders, blocking: Blocking, uid: int, gid: int) -> None:
        self._folders = folders
        self._blocking = blocking
        self._uid = uid
        self._gid = gid
        self._trash = Trash(folders.tasks / ".cleared")

    async def make(self, task_id: str, *, fresh: bool) -> None:
        """Every folder that a container is given, its gate closed and its /tmp empty; it does not run.

        fresh: the run folder without what an earlier container left.
        """
        await self._blocking.call(self._make, task_id, fresh)

    async def open_gate(self, task_id: str) -> None:
        """Let the container's first process run what is in the repositories."""
        await self._blocking.call(self._open_gate, task_id)

    async def slugs(self, task_id: str) -> list[str]:
        """Of the work copies that are there."""
        return await self._blocking.call(_folders_in, self._folders.work(task_id))

    async def clear(self, task_id: str) -> None:
        """Remove all of the task but what was attached; a folder left empty is removed too."""
        await self._blocking.call(self._clear, task_id)

    def _make(self, task_id: str, fresh: bool) -> None:
        folders = self._folders
        self._trash.remove(folders.scratch(task_id))
        if fresh:
            # It could be mistaken for the new container's word.
            self._trash.remove(folders.run(task_id))
        for name in WORDS:
            # Nor what lies at these places of an earlier container, by whoever's hand.
            with contextlib.suppress(PermissionError):
                self._trash.remove(folders.run(task_id) / name)
        # Written by the host alone. The data folder above is closed to everybody else on this machine; in the
        # container another user looks in.
        control = _folder(folders.control(task_id), 0o755)
        (control / GATE).unlink(missing_ok=True)
        _folder(folders.attachments(task_id), 0o755)
        _folder(folders.tools, 0o755)
        # The work copies are the container's, the folder of them is not: nothing beside them can be made.
        _folder(folders.work(task_id), 0o755 if os.geteuid() == 0 else 0o555)
        self._own(_folder(folders.home(task_id), 0o700))
        self._own(_folder(folders.run(task_id), 0o700))
        # As every program expects of /tmp.
        _folder(folders.scratch(task_id), 0o1777)

    def _own(self, folder: Path) -> None:
        if os.geteuid() == 0:
            # Not through a link: the folders above are the daemon's, so these are what was just looked at.
            os.chown(folder, self._uid, self._gid, follow_symlinks=False)

    def _open_gate(self, task_id: str) -> None:
        gate = self._folders.control(task_id) / GATE
        gate.touch(mode=0o444)

    def _clear(self, task_id: str) -> None:
        task = self._folders.task(task_id)
        attachments = self._folders.attachments(task_id)
        for path in sorted(task.iterdir()) if task.is_dir() else []:
            if path != attachments:
                if path.is_dir() and not path.is_symlink():
                    # To move a folder is to write its "..".
                    path.chmod(0o755)
                self._trash.remove(path)
        for folder in (attachments, task):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _folder(path: Path, mode: int) -> Path:
    """The folder `path`, made when it is missing, of exactly this mode."""
    path.mkdir(parents=True, exist_ok=True)
    if path.stat().st_mode & 0o7777 != mode:
        path.chmod(mode)
    return path


def _folders_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
