"""What the owner of the machine does to a task from here, whether a bridge is there or not: stop it, take its
work away.

Both go the ways of the commands: what happens is told as events, which a bridge hears of when it is back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from uaihost.commands.lanes import Lanes, to_the_end
from uaihost.commands.registry import lifecycle_key
from uaihost.commands.tasks import Tasks
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import checked_task
from uaihost.workspaces.restore import Kept

# Where an export is fetched, at the local API.
DOWNLOADS = "/api/downloads/"


class Archive(Protocol):
    """workspaces.exports.Archive."""

    name: str
    size: int
    ticket: str
    notes: dict[str, list[str]]


class Exports(Protocol):
    """workspaces.exports.Exports."""

    async def make(self, task_id: str, kept: Sequence[Kept]) -> Archive:
        """An archive of what was kept."""


class Saved(Protocol):
    """What was kept of tasks (workspaces.Workspaces)."""

    async def kept(self, task_id: str | None = None) -> list[Kept]:
        """The newest first."""


class OwnerCommands:
    """lanes: those of the commands."""

    def __init__(self, tasks: Tasks, lanes: Lanes, saved: Saved, exports: Exports) -> None:
        self._tasks = tasks
        self._lanes = lanes
        self._saved = saved
        self._exports = exports

    async def stop(self, words: dict[str, Any]) -> dict[str, Any]:
        """As taskDown: `{taskId}` -> `{status, saved, restore}`; restore: what brings the work back, to type.

        Raises:
            HostError: as of taskDown; nothing is removed before the work is safe.
        """
        task_id = _task(words)
        self._tasks.give_up(task_id)
        # Whoever asked may go away: what was begun is completed.
        done = await to_the_end(self._lanes.turn(lifecycle_key(task_id), lambda: self._tasks.stop(task_id)))
        back = f"uaihost restore {task_id}" if done["saved"] else None
        return {**done, "restore": back}

    async def keep(self, words: dict[str, Any]) -> dict[str, Any]:
        """Save what the task holds now, and leave it as it is: `{taskId}` -> `{kept}`, how many work copies.

        Raises:
            HostError: it cannot be read or written.
        """
        record = await self._tasks.records.find(_task(words))
        kept = [] if record is None else await to_the_end(self._tasks.keep(record))
        return {"kept": len(kept)}

    async def export(self, words: dict[str, Any]) -> dict[str, Any]:
        """An archive of the task's work, as it is now or, when the task is gone, as it was kept.

        `{taskId}` -> `{download, file, bytes, live, notes}`: `download` is an address of this API that
        answers once, with a `.tar.gz` (cli.local.fetch); notes: for people, by folder of the
        archive. A task that runs goes on.

        Raises:
            HostError: `not_found`, there is no work of it; or it cannot be read or written.
        """
        task_id = _task(words)
        return await to_the_end(self._export(task_id))

    async def _export(self, task_id: str) -> dict[str, Any]:
        record = await self._tasks.records.find(task_id)
        names = set() if record is None else {one.name or one.slug for one in await self._tasks.keep(record)}
        found = await self._saved.kept(task_id)
        if names:
            found = [one for one in found if one.name in names]
        if not found:
            raise HostError(ErrorCode.NOT_FOUND, f"there is no work of {task_id} on this machine")
        made = await self._exports.make(task_id, found)
        return {
            "download": f"{DOWNLOADS}{made.ticket}",
            "file": made.name,
            "bytes": made.size,
            "live": bool(names),
            "notes": made.notes,
        }


def _task(words: dict[str, Any]) -> str:
    task_id = words.get("taskId")
    if not isinstance(task_id, str):
        raise HostError(ErrorCode.INVALID_ARGS, 'expected {"taskId": "ID"}')
    return checked_task(task_id)
