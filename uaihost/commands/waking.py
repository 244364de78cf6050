"""Parked tasks start when they are used: by a word in the channel, by a tunnel. It knows turns and tasks."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.commands.lanes import Lanes
from uaihost.commands.registry import lifecycle_key
from uaihost.commands.tasks import Tasks
from uaihost.errors import HostError

log = Logger()


class Waking:
    def __init__(self, tasks: Tasks, lanes: Lanes) -> None:
        self._tasks = tasks
        self._lanes = lanes

    async def wake(self, task_id: str) -> None:
        """Returns when the task runs; one that is not parked, and is not being started, is left as it is.

        Raises:
            HostError: it could not be started.
        """
        record = await self._tasks.records.find(task_id)
        # Also one that another's use is starting now: its channel is not open before that.
        if record is not None and self._tasks.starts_when_used(record):
            await self._lanes.turn(lifecycle_key(task_id), lambda: self._tasks.wake(task_id))

    async def wake_in_turn(self, task_id: str) -> None:
        """As `wake`, for a command that has its turn among the task's life cycle commands already."""
        await self._tasks.wake(task_id)

    def on_missing(self, task_id: str) -> None:
        """Something of the task is wanted that is not there, by a tunnel: start it if it is parked."""
        woken = Deferred.fromCoroutine(self.wake(task_id))
        woken.addErrback(self._failed, task_id)

    def _failed(self, failure: Failure, task_id: str) -> None:
        error = failure.value
        if isinstance(error, HostError):
            # Its row says so too.
            log.warn("task {task} could not be woken: {error}", task=task_id, error=error.message)
        else:
            log.failure("task {task} could not be woken", failure, task=task_id)
