"""How much disk everything of this host takes, by class and by task. It only looks.

Like `du`: the blocks that files take, links not followed, other file systems left out. What agents filled is
hostile: folders are opened relative to their parents without following links, files may vanish meanwhile, and
depth and number are bounded, so that a sum may be less than the truth, and then says so.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import Folders

T = TypeVar("T")

# Folders within folders that are looked into: one descriptor each, and no tree of people is so deep.
DEPTH = 128
# Files and folders of one tree: some tens of seconds, and what is remembered of them some 100 MB at worst.
ENTRIES = 2_000_000
# Entries after which a walk lets others have the processor, and for how many seconds.
TURN = 500
PAUSE = 0.001
# Seconds for which the sums of everything hold.
FRESH = 300.0
# Parts of a task that are named when it is full.
LARGEST = 5
# Parts that are told apart: an agent may make millions.
PARTS = 4096

# The classes of what lies in the data folder. Those of the engine are added by who asks it.
CLASSES = (
    "mirrors",
    "saved",
    "tools",
    "images",
    "work",
    "homes",
    "scratch",
    "attachments",
    "transcripts",
    "database",
    "trash",
)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_BLOCK = 512


class Stopped(Exception):
    """The walk was called off."""


@attrs.frozen
class Sum:
    """bytes: on disk; whole: nothing was left out; parts: the bytes of each folder or file at the second
    level (`shop/node_modules`), for what is large.
    """

    bytes: int
    whole: bool
    parts: dict[str, int] = attrs.field(factory=dict)


@attrs.frozen
class TaskUsage:
    """Bytes on disk. largest: what the container calls it, with its bytes, the largest first; whole: nothing
    was left out; at: seconds since the epoch.
    """

    work: int = 0
    home: int = 0
    scratch: int = 0
    largest: tuple[tuple[str, int], ...] = ()
    whole: bool = True
    at: float = 0.0

    @property
    def total(self) -> int:
        return self.work + self.home + self.scratch


@attrs.frozen
class Measured:
    """Bytes on disk: by class, by task and by mirror's key. at: seconds since the epoch, when it began."""

    at: float
    classes: dict[str, int]
    tasks: dict[str, TaskUsage]
    mirrors: dict[str, int]


@attrs.frozen
class Space:
    """Of the file system that the data folder is on, in bytes."""

    free: int
    total: int


class Disk:
    """blocking: where it walks; best a thread of its own, since a walk may take minutes."""

    def __init__(self, clock: IReactorTime, blocking: Blocking, folders: Folders) -> None:
        self._clock = clock
        self._blocking = blocking
        self._folders = folders
        self._turn = DeferredLock()
        self._last: Measured | None = None
        self._tasks: dict[str, TaskUsage] = {}
        self._off = threading.Event()

    def stop(self) -> None:
        """Call off what is being measured; it fails with HostError `cancelled`, as does all that follows."""
        self._off.set()

    def known(self) -> Measured | None:
        """The last sums of everything, however old."""
        return self._last

    def last(self, task_id: str) -> TaskUsage | None:
        """The task's last measurement; None when there is none."""
        return self._tasks.get(task_id)

    def forget(self) -> None:
        """Something was removed: the next who asks for everything has it measured."""
        self._last = None

    async def measure(self, max_age: float = FRESH) -> Measured:
        """Everything; who asks while it is measured gets the same. max_age: seconds.

        Raises:
            HostError: `cancelled`; `unavailable`, a folder of the host's own cannot be read.
        """
        asked = self._clock.seconds()
        return await self._turn.run(lambda: Deferred.fromCoroutine(self._measure(asked - max_age)))

    async def _measure(self, since: float) -> Measured:
        if self._last is None or self._last.at < since:
            found = await self._walk(self._everything)
            self._tasks = dict(found.tasks)
            self._last = found
        return self._last

    async def usage(self, task_id: str) -> TaskUsage:
        """One task, now.

        Raises:
            HostError: as `measure`.
        """
        found = await self._walk(lambda: self._task(self._folders.task(task_id)))
        self._tasks[task_id] = found
        return found

    async def space(self) -> Space:
        """What is free. HostError `unavailable`."""
        found = await self._walk(lambda: os.statvfs(self._folders.root))
        return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)

    async def size(self, path: Path) -> int:
        """Bytes of one file or folder. HostError as `measure`."""
        return (await self._walk(lambda: size(path, off=self._off.is_set))).bytes

    async def _walk(self, work: Callable[[], T]) -> T:
        try:
            return await self._blocking.call(work)
        except Stopped:
            raise HostError(ErrorCode.CANCELLED, "measuring was called off: the host is stopping") from None
        except OSError as error:
            raise HostError(
                ErrorCode.UNAVAILABLE, f"{self._folders.root} cannot be measured: {error.strerror}"
            ) from error

    # in the thread

    def _everything(self) -> Measured:
        folders, at = self._folders, self._clock.seconds()
        classes = dict.fromkeys(CLASSES, 0)
        mirrors: dict[str, int] = {}
        tasks: dict[str, TaskUsage] = {}
        for path in _entries(folders.mirrors):
            found = self._size(path)
            if path.name.endswith(".git"):
                mirrors[path.name.removesuffix(".git")] = found
            classes["trash" if is_leftover(path) else "mirrors"] += found
        for path in _entries(folders.tasks):
            if path.name.startswith("."):
                classes["trash"] += self._size(path)
                continue
            usage = tasks[path.name] = self._task(path)
            classes["work"] += usage.work + self._size(path / "git")
            classes["homes"] += usage.home
            classes["scratch"] += usage.scratch
            classes["attachments"] += self._size(path / "attachments")
        classes["trash"] += self._size(leftover_tools(folders))
        for name in ("saved", "tools", "transcripts"):
            classes[name] = self._size(folders.root / name)
        classes["images"] = self._size(folders.root / "images")
        beside = [folders.database.with_name(folders.database.name + end) for end in ("", "-wal", "-shm")]
        classes["database"] = sum(self._size(path) for path in beside)
        return Measured(at, classes, tasks, mirrors)

    def _size(self, path: Path) -> int:
        return size(path, off=self._off.is_set).bytes

    def _task(self, task: Path) -> TaskUsage:
        found = {name: size(task / name, off=self._off.is_set) for name in ("work", "home", "scratch")}
        inside = {"work": "/workspace", "home": "/home/dev", "scratch": "/tmp"}
        parts = [
            (f"{inside[name]}/{part}", n) for name, sum in found.items() for part, n in sum.parts.items()
        ]
        parts.sort(key=lambda part: (-part[1], part[0]))
        return TaskUsage(
            work=found["work"].bytes,
            home=found["home"].bytes,
            scratch=found["scratch"].bytes,
            largest=tuple(parts[:LARGEST]),
            whole=all(sum.whole for sum in found.values()),
            at=self._clock.seconds(),
        )


def is_leftover(path: Path) -> bool:
    """Whether an entry of the folder of mirrors is half-made or half-removed."""
    return path.name in (".trash", ".cleaned") or path.name.endswith(".new")


def leftover_tools(folders: Folders) -> Path:
    """Where tool versions are made and unmade (containers.tool_store)."""
    return folders.tools.with_name("tools-new")


def size(
    path: Path,
    *,
    off: Callable[[], bool] = lambda: False,
    depth: int = DEPTH,
    entries: int = ENTRIES,
    pause: float = PAUSE,
) -> Sum:
    """What `path` and everything below it takes; what is not there takes nothing. Blocks.

    depth, entries: beyond these nothing is counted. off: asked every now and then; true calls it off.

    Raises:
        Stopped: it was called off.
    """
    return _Walk(off, depth, entries, pause).sum(path)


class _Walk:
    """One tree. Depth first, with a descriptor for each folder on the way."""

    def __init__(self, off: Callable[[], bool], depth: int, entries: int, pause: float) -> None:
        self._off = off
        self._depth = depth
        self._left = entries
        self._pause = pause
        self._whole = True
        self._parts: dict[str, int] = {}
        # Of files with several names, which count once.
        self._seen: set[tuple[int, int]] = set()
        self._device = 0

    def sum(self, path: Path) -> Sum:
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return Sum(0, True)
        self._device = found.st_dev
        total = found.st_blocks * _BLOCK
        stack: list[tuple[int, list[str], tuple[str, ...]]] = []
        try:
            total += self._enter(os.fspath(path), None, (), stack)
            while stack:
                folder, inner, names = stack[-1]
                if inner:
                    name = inner.pop()
                    total += self._enter(name, folder, (*names, name)[:2], stack)
                else:
                    os.close(folder)
                    stack.pop()
        finally:
            for folder, _, _ in stack:
                os.close(folder)
        return Sum(total, self._whole, self._parts)

    def _enter(
        self,
        name: str,
        parent: int | None,
        names: tuple[str, ...],
        stack: list[tuple[int, list[str], tuple[str, ...]]],
    ) -> int:
        """The bytes of what is directly in the folder; its folders are on the stack then."""
        if len(stack) >= self._depth or self._left <= 0:
            self._whole = False
            return 0
        try:
            folder = os.open(name, _FOLDER, dir_fd=parent)
        except OSError:
            # It vanished, became something else, or may not be read.
            self._whole = False
            return 0
        inner: list[str] = []
        stack.append((folder, inner, names))
        total = 0
        with suppress(FileNotFoundError), os.scandir(folder) as found:
            for entry in found:
                self._breathe()
                if self._left < 0:
                    self._whole = False
                    break
                total += self._count(entry, names, inner)
        return total

    def _count(self, entry: os.DirEntry[str], names: tuple[str, ...], inner: list[str]) -> int:
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError:
            return 0
        if entry.is_dir(follow_symlinks=False):
            if found.st_dev != self._device:
                return 0
            inner.append(entry.name)
        elif found.st_nlink > 1:
            key = (found.st_dev, found.st_ino)
            if key in self._seen:
                return 0
            self._seen.add(key)
        taken = found.st_blocks * _BLOCK
        part = (*names, entry.name)[:2]
        # The second level is what people know; a file at the first one stands for itself.
        if len(part) == 2 or not entry.is_dir(follow_symlinks=False):
            self._add("/".join(part), taken)
        return taken

    def _add(self, part: str, taken: int) -> None:
        if part in self._parts or len(self._parts) < PARTS:
            self._parts[part] = self._parts.get(part, 0) + taken

    def _breathe(self) -> None:
        self._left -= 1
        if self._left % TURN == 0:
            if self._off():
                raise Stopped
            time.sleep(self._pause)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
