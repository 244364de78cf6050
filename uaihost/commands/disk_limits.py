"""Tasks that fill their share of the disk are told so early, and what is large. Nothing is ended for it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from uaihost.commands.disk import Disk, TaskUsage
from uaihost.errors import HostError

log = Logger()

# Seconds between two looks: a walk over every running task, and no disk of today fills much faster.
PERIOD = 300.0
# Seconds between two notes to a task that is over its limit.
REPEAT = 3600.0
# Percent at which a task is told once; again only after it was below the second number.
WARNED, CALM = 90, 80
# Characters of a name that an agent chose.
NAME_LIMIT = 80


class DiskLimits:
    """running: the ids of the tasks that run. note: puts a line into a task's channel. limit: bytes."""

    def __init__(
        self,
        clock: IReactorTime,
        disk: Disk,
        running: Callable[[], Awaitable[list[str]]],
        note: Callable[[str, str], Awaitable[None]],
        limit: int,
    ) -> None:
        self._clock = clock
        self._disk = disk
        self._running = running
        self._note = note
        self._limit = limit
        self._warned: set[str] = set()
        # When each task that is over was told last.
        self._told: dict[str, float] = {}
        self._next: Any = None
        self._stopped = True

    def start(self) -> None:
        self._stopped = False
        self._next = self._clock.callLater(PERIOD, self._again)

    def stop(self) -> None:
        self._stopped = True
        if self._next is not None and self._next.active():
            self._next.cancel()

    async def look(self) -> None:
        """Measure every running task, and tell those that are nearly or wholly full."""
        tasks = await self._running()
        self._warned &= set(tasks)
        self._told = {task_id: at for task_id, at in self._told.items() if task_id in tasks}
        for task_id in tasks:
            if self._stopped:
                return
            try:
                usage = await self._disk.usage(task_id)
                text = self._judged(task_id, usage)
                if text is not None:
                    await self._note(task_id, text)
            except HostError as error:
                log.debug("{task} is not told of its disk: {why}", task=task_id, why=error.message)

    def _again(self) -> None:
        looked = Deferred.fromCoroutine(self.look())
        looked.addErrback(lambda failure: log.failure("tasks' disk could not be measured", failure))
        looked.addBoth(lambda _: None if self._stopped else self.start())

    def _judged(self, task_id: str, usage: TaskUsage) -> str | None:
        """What to tell the task now; None when nothing."""
        percent = usage.total * 100 // self._limit
        if percent < CALM:
            self._warned.discard(task_id)
        if percent < 100:
            self._told.pop(task_id, None)
        now = self._clock.seconds()
        if percent >= 100:
            self._warned.add(task_id)
            told = self._told.get(task_id)
            if told is not None and now - told < REPEAT:
                return None
            self._told[task_id] = now
        elif percent >= WARNED and task_id not in self._warned:
            self._warned.add(task_id)
        else:
            return None
        return said(usage, self._limit)


def said(usage: TaskUsage, limit: int) -> str:
    """For the task's people and agents, on one line."""
    large = ", ".join(f"{shown(name)} {_size(size)}" for name, size in usage.largest)
    full = "is full" if usage.total >= limit else "is nearly full"
    least = "" if usage.whole else "at least "
    return (
        f"This task's disk {full}: it uses {least}{_size(usage.total)} of {_size(limit)}. Largest: {large}. "
        "Remove what can be made again, such as caches and builds; the owner can give tasks more with "
        "UAI_TASK_DISK."
    )


def shown(name: str) -> str:
    """A path that an agent chose, as nothing but a path: it must not speak to anybody."""
    return re.sub(r"[^A-Za-z0-9._/+-]", "?", name)[:NAME_LIMIT]


def _size(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB" if size < 1 << 30 else f"{size / (1 << 30):.1f} GiB"
