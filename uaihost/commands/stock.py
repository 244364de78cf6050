"""What could be removed to free disk: each class's candidates, in the order in which they would go.

Whatever a person or an agent made is a candidate only where it is at rest: its task is down or has failed, is
not parked, waits for nothing, no command works on it, and the engine says that no container of it runs. That
is looked at again in the task's turn, right before something is removed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import attrs
from twisted.internet.interfaces import IReactorTime

from uaihost.blocking import Blocking
from uaihost.commands.disk import Disk, Measured, is_leftover, leftover_tools
from uaihost.commands.lanes import Lanes
from uaihost.commands.lifecycle import Status
from uaihost.commands.records import parked, waiting_in
from uaihost.commands.registry import lifecycle_key
from uaihost.commands.tasks import Tasks
from uaihost.containers.images import GRACE, ImageInfo
from uaihost.containers.tools import ToolVersion
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Engine
from uaihost.paths import Folders
from uaihost.state.tasks import TaskRecord
from uaihost.workspaces.removal import Trash

DAY = 86_400.0
# Seconds after which what can be made again is taken to be not needed any more.
UNUSED = 30 * DAY

# A container in one of these states has no process.
_ENDED = ("created", "exited", "dead")

AWAY = "the task was not used for 30 days and disk was needed: its work was saved, its files were removed"


class Images(Protocol):
    """containers.images."""

    async def list(self) -> Sequence[ImageInfo]: ...

    async def remove(self, reference: str) -> None: ...


class Tools(Protocol):
    """containers.tools."""

    async def list(self) -> Sequence[ToolVersion]: ...

    async def remove(self, name: str, version: str) -> None: ...


class Mirrors(Protocol):
    """workspaces.workspaces."""

    async def idle_mirrors(self) -> dict[str, float]: ...

    async def remove_mirror(self, key: str) -> bool: ...


@attrs.frozen
class Item:
    """Something that can go. why: it may; remove: raises HostError, with why it stays after all."""

    what: str
    bytes: int
    why: str
    remove: Callable[[], Awaitable[None]]


@attrs.frozen
class Kept:
    """Something that stays, and why."""

    what: str
    why: str


Found = tuple[list[Item], list[Kept]]


class Stock:
    """blocking: where files are removed."""

    def __init__(
        self,
        clock: IReactorTime,
        blocking: Blocking,
        folders: Folders,
        disk: Disk,
        tasks: Tasks,
        lanes: Lanes,
        engine: Engine,
        images: Images,
        tools: Tools,
        mirrors: Mirrors,
    ) -> None:
        self._clock = clock
        self._blocking = blocking
        self._folders = folders
        self._disk = disk
        self._tasks = tasks
        self._lanes = lanes
        self._engine = engine
        self._images = images
        self._tools = tools
        self._mirrors = mirrors
        # On the file system of what goes there.
        self._trash = {place: Trash(place / ".cleaned") for place in (folders.mirrors, folders.tasks)}

    async def find(self, kind: str, measured: Measured | None) -> Found:
        """The candidates of a class, in order, and what of it stays.

        measured: None when nothing could be measured.

        Raises:
            HostError: it cannot be told what there is; then nothing of the class may go.
        """
        if kind == "trash":
            return await self._leftovers(), []
        # An engine that does not answer may run what nobody sees.
        await self._engine.ping()
        if kind == "images":
            return await self._old_images()
        if kind == "tools":
            return await self._old_tools()
        if kind == "mirrors":
            return await self._old_mirrors(measured)
        return await self._of_tasks(kind, measured)

    async def image_bytes(self) -> int:
        """What the task images take. HostError: the engine does not say."""
        return sum(image.size for image in await self._images.list())

    async def _leftovers(self) -> list[Item]:
        limit = self._clock.seconds() - DAY
        found = await self._blocking.call(self._old_leftovers, limit)
        items = []
        for path, home in found:
            trash = self._trash[home]

            async def remove(path: Path = path, trash: Trash = trash) -> None:
                await self._blocking.call(_discard, trash, path)

            what = str(path.relative_to(self._folders.root))
            items.append(Item(what, await self._disk.size(path), "left over for more than a day", remove))
        return items

    def _old_leftovers(self, limit: float) -> list[tuple[Path, Path]]:
        """With each, the folder whose trash it goes through. Blocks."""
        folders = self._folders
        found = []
        for home in (folders.mirrors, folders.tasks):
            for name in (".trash", ".cleared", ".cleaned"):
                found += [(path, home) for path in _entries(home / name)]
        found += [
            (path, folders.mirrors)
            for path in _entries(folders.mirrors)
            if is_leftover(path) and not path.name.startswith(".")
        ]
        found += [(path, folders.tasks) for path in _entries(leftover_tools(folders))]
        # The time of its change is the kernel's word; that of its modification could be anybody's.
        return sorted((path, home) for path, home in found if _changed(path) <= limit)

    async def _old_images(self) -> Found:
        images = await self._images.list()
        if not any(image.current for image in images):
            # Without the base image nobody knows which of them is current.
            return [], [Kept(image.reference, "which image is current is not known") for image in images]
        items, kept = [], []
        now = self._clock.seconds()
        for image in sorted(images, key=lambda one: (one.created, one.reference)):
            why = (
                "tasks are made from it"
                if image.current
                else "a container is made from it"
                if image.in_use
                else "it is new"
                if now - image.created / 1000 < GRACE
                else None
            )
            if why is not None:
                kept.append(Kept(image.reference, why))
                continue

            async def remove(reference: str = image.reference) -> None:
                await self._images.remove(reference)

            items.append(Item(image.reference, image.size, "a newer image took its place", remove))
        return items, kept

    async def _old_tools(self) -> Found:
        items, kept = [], []
        for tool in sorted(await self._tools.list(), key=lambda one: one.last_used):
            what = f"{tool.name}@{tool.version}"
            if tool.tasks:
                kept.append(Kept(what, f"task {tool.tasks[0]} has it"))
            elif self._clock.seconds() - tool.last_used < UNUSED:
                kept.append(Kept(what, "it was used in the last 30 days"))
            else:

                async def remove(tool: ToolVersion = tool) -> None:
                    await self._tools.remove(tool.name, tool.version)

                items.append(Item(what, tool.bytes, "not used for 30 days", remove))
        return items, kept

    async def _old_mirrors(self, measured: Measured | None) -> Found:
        sizes = _needed(measured).mirrors
        idle = await self._mirrors.idle_mirrors()
        items = []
        kept = [Kept(key, "a task or saved work needs it") for key in sorted(sizes) if key not in idle]
        for key, at in sorted(idle.items(), key=lambda one: (one[1], one[0])):
            if self._clock.seconds() - at < UNUSED:
                kept.append(Kept(key, "it was fetched in the last 30 days"))
                continue

            async def remove(key: str = key) -> None:
                if not await self._mirrors.remove_mirror(key):
                    raise HostError(ErrorCode.CONFLICT, "it is in use")

            items.append(Item(key, sizes.get(key, 0), "not fetched for 30 days", remove))
        return items, kept

    # ---- of tasks ------------------------------------------------------------------------------------------

    async def _of_tasks(self, kind: str, measured: Measured | None) -> Found:
        items, kept = [], []
        sizes = measured.tasks if measured is not None else {}
        if kind != "scratch":
            _needed(measured)
        running = {one.task_id for one in await self._engine.all() if one.state not in _ENDED}
        records = await self._tasks.records.every()
        known = {record.id for record in records}
        kept += [Kept(f"task {task_id}", "nobody knows this task") for task_id in sorted({*sizes} - known)]
        for record in sorted(records, key=lambda one: (one.updated_at, one.id)):
            size = await self._size(kind, record, measured)
            if not size:
                continue
            why = self._why_not(record, running)
            if why is None and self._lanes.busy(lifecycle_key(record.id)):
                why = "a command works on it"
            if (
                why is None
                and kind != "scratch"
                and record.status == Status.STOPPED
                and record.saved is not None
            ):
                # Made after its taskDown had removed everything, so nobody has saved it.
                why = "it is down, and what is there was not saved"
            if why is None and kind != "scratch" and self._age(record) < UNUSED:
                why = "it was used in the last 30 days"
            if why is not None:
                kept.append(Kept(f"task {record.id}", why))
                continue
            reason = "its task does not run" if kind == "scratch" else "its task was not used for 30 days"
            items.append(Item(f"task {record.id}", size, reason, self._in_turn(kind, record)))
        return items, kept

    async def _size(self, kind: str, record: TaskRecord, measured: Measured | None) -> int:
        if measured is None:
            return await self._disk.size(self._folders.scratch(record.id))
        usage = measured.tasks.get(record.id)
        if usage is None:
            return 0
        return {"scratch": usage.scratch, "homes": usage.home, "work": usage.work}[kind]

    def _age(self, record: TaskRecord) -> float:
        """Seconds since it changed its state."""
        return self._clock.seconds() - record.updated_at / 1000

    def _why_not(self, record: TaskRecord, running: set[str]) -> str | None:
        """Why nothing of the task may go; None when it is at rest."""
        if parked(record):
            return "it is parked: it starts again when it is used"
        if record.status not in (Status.STOPPED, Status.FAILED):
            return f"it is {record.status}"
        waiting = self._tasks.waiting(record.id) or waiting_in(record)
        if waiting is not None:
            return f"it waits: {waiting.reason.value}"
        return "its container runs" if record.id in running else None

    def _in_turn(self, kind: str, record: TaskRecord) -> Callable[[], Awaitable[None]]:
        key = lifecycle_key(record.id)

        async def remove() -> None:
            if self._lanes.busy(key):
                raise HostError(ErrorCode.CONFLICT, "a command works on it")
            await self._lanes.turn(key, lambda: self._remove(kind, record))

        return remove

    async def _remove(self, kind: str, known: TaskRecord) -> None:
        """In the task's turn: nobody brings it up meanwhile."""
        record = await self._tasks.records.find(known.id)
        if record is None or record.updated_at != known.updated_at:
            raise HostError(ErrorCode.CONFLICT, "it was used meanwhile")
        found = await self._engine.find(record.id)
        running = {record.id} if found is not None and found.state not in _ENDED else set()
        why = self._why_not(record, running)
        if why is not None:
            raise HostError(ErrorCode.CONFLICT, why)
        if kind == "work":
            await self._tasks.put_away(record, AWAY)
            # What it is about has happened, whether it can be told or not.
            with suppress(HostError):
                back = f"bring the task up again, or `uaihost restore {record.id}`"
                await self._tasks.around.channels.note(record.id, f"{AWAY}; {back}")
            return
        if kind == "homes" and record.saved is None:
            # The agents' conversations, with everything else.
            await self._tasks.keep(record)
        folder = self._folders.home if kind == "homes" else self._folders.scratch
        await self._blocking.call(_discard, self._trash[self._folders.tasks], folder(record.id))


def _needed(measured: Measured | None) -> Measured:
    if measured is None:
        raise HostError(ErrorCode.UNAVAILABLE, "the disk could not be measured")
    return measured


def _discard(trash: Trash, path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            # To move a folder is to write its "..", which an agent may have forbidden.
            path.chmod(0o700)
        trash.remove(path)
    except OSError as error:
        raise HostError(ErrorCode.UNAVAILABLE, f"{path} cannot be removed: {error.strerror}") from error


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_ctime
    except OSError:
        return float("inf")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
