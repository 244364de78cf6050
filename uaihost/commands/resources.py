"""What running tasks use now, told as fleeting `task.resources` events. It only looks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from uaihost.commands.lanes import together
from uaihost.errors import HostError
from uaihost.interfaces import Engine, Journal, Usage
from uaihost.wire.events import TaskResources

log = Logger()

# Seconds between two measurements: the engine takes one second for each, and nobody reads faster.
PERIOD = 15.0


class Resources:
    """running: the ids of the tasks whose containers run."""

    def __init__(
        self,
        clock: IReactorTime,
        journal: Journal,
        engine: Engine,
        running: Callable[[], Awaitable[list[str]]],
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._engine = engine
        self._running = running
        self._next: Any = None
        self._stopped = True
        self._last: dict[str, Usage] = {}

    def start(self) -> None:
        self._stopped = False
        self._next = self._clock.callLater(PERIOD, self._again)

    def stop(self) -> None:
        self._stopped = True
        if self._next is not None and self._next.active():
            self._next.cancel()

    def last(self, task_id: str) -> Usage | None:
        """What the task used at the last measurement; None when there is none."""
        return self._last.get(task_id)

    async def measure(self) -> None:
        """Measure every running task and tell."""
        found: dict[str, Usage] = {}

        async def one(task_id: str) -> None:
            try:
                usage = await self._engine.usage(task_id)
            except HostError as error:
                # It ended meanwhile, or the engine is away, which others tell.
                log.debug("no measurement of {task}: {error}", task=task_id, error=error.message)
                return
            found[task_id] = usage
            at = int(self._clock.seconds() * 1000)
            self._journal.fleeting(TaskResources(task_id, at, usage.memory, usage.cpu_percent))

        await together(one(task_id) for task_id in await self._running())
        self._last = found

    def _again(self) -> None:
        measured = Deferred.fromCoroutine(self.measure())
        measured.addErrback(lambda failure: log.failure("tasks could not be measured", failure))
        measured.addBoth(lambda _: None if self._stopped else self.start())
