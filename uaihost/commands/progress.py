"""The steps of a long command, reported as task.progress. It knows the journal, not the steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from uaihost.errors import HostError
from uaihost.interfaces import Journal, Step
from uaihost.wire.events import TaskProgress

T = TypeVar("T")

log = Logger()

# Seconds between two lines of one step: each is a row on the disk, and git says ten a second.
PAUSE = 1.0

# Characters of a line that is passed on.
LINE = 400


class Progress:
    """What one command reports of one task."""

    def __init__(self, journal: Journal, clock: IReactorTime, task_id: str) -> None:
        self._journal = journal
        self._clock = clock
        self._task_id = task_id

    async def step(self, name: str, work: Callable[[Callable[[str], None]], Awaitable[T]]) -> T:
        """The result of `work`, which is given a function for its lines; started and done or failed are said.

        Raises:
            HostError: that of `work`, its sentence led by the step's name.
        """
        began = self._clock.seconds()
        said = began - PAUSE

        def say(line: str) -> None:
            nonlocal said
            now = self._clock.seconds()
            if now - said >= PAUSE and line.strip():
                said = now
                self._later(self._event(name, "started", line.strip()))

        await self._journal.emit(self._event(name, "started"))
        try:
            result = await work(say)
        except Exception as error:
            why = error.message if isinstance(error, HostError) else "a defect of the host; see its log"
            await self._journal.emit(self._event(name, "failed", why, began))
            if isinstance(error, HostError):
                raise HostError(error.code, f"{name}: {error.message}") from error
            raise
        await self._journal.emit(self._event(name, "done", None, began))
        return result

    def inner(self, step: Step) -> None:
        """A step of the set-up inside the container."""
        at = int(self._clock.seconds() * 1000)
        message = step.message[-LINE:] if step.message else None
        name = f"setup: {step.step}"
        self._later(TaskProgress(self._task_id, at, name, step.state, message, step.elapsedMs))

    def _event(
        self,
        name: str,
        state: Literal["started", "done", "failed"],
        message: str | None = None,
        began: float | None = None,
    ) -> TaskProgress:
        now = self._clock.seconds()
        elapsed = None if began is None else int((now - began) * 1000)
        return TaskProgress(
            self._task_id, int(now * 1000), name, state, None if message is None else message[:LINE], elapsed
        )

    def _later(self, event: TaskProgress) -> None:
        done = Deferred.fromCoroutine(self._journal.emit(event))
        done.addErrback(lambda failure: log.failure("progress was not stored", failure))
