"""The steps of a long command: reported as task.progress, stored with their durations, each within its limit.

It knows the journal, the steps' table and what tasks wait for; what a step does is not its business.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from uaihost.commands.waits import Waits
from uaihost.errors import HostError
from uaihost.interfaces import Doing, Journal, Json, Say, Step, Store
from uaihost.state import steps as rows
from uaihost.state.steps import StepRecord
from uaihost.wire.events import TaskProgress
from uaihost.wire.reasons import Reason

T = TypeVar("T")

log = Logger()

# Seconds between two lines of one step: each is a row on the disk, and git says ten a second.
PAUSE = 1.0

# Characters of a line that is passed on, and of the last lines of what failed.
LINE = 400
LAST_WORDS = 4000

# Lines of one attempt's container that are told: each is a row on the disk, and a container may name steps
# without end. An honest one names tens.
INNER_LIMIT = 1000

_CUT = "cut off, since another step failed"


class Progress:
    """What one attempt does to one task. Made by `begin`."""

    def __init__(
        self, journal: Journal, clock: IReactorTime, waits: Waits, task_id: str, attempt: int
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._waits = waits
        self._task_id = task_id
        self._attempt = attempt
        self._count = 0
        # Steps inside the container by name, as they began.
        self._inner: dict[str, StepRecord] = {}
        self._heard = 0

    @classmethod
    async def begin(
        cls, store: Store, journal: Journal, clock: IReactorTime, waits: Waits, task_id: str
    ) -> Progress:
        """The steps of a new attempt; the task has a row."""
        attempt = await store.run(lambda db: rows.begin(db, task_id))
        return cls(journal, clock, waits, task_id, attempt)

    async def step(
        self, name: str, reason: Reason, work: Callable[[Say], Coroutine[Deferred[Any], Any, T]]
    ) -> T:
        """The result of `work`, which is given a function to say what it is at.

        reason: what the task waits for meanwhile, unless the work says otherwise; its limit ends the work.

        Raises:
            HostError: that of `work`, or `timeout`; its sentence is led by the step's name.
        """
        began = self._record(name, "started", None)
        said = self._clock.seconds() - PAUSE

        def say(what: str | Doing) -> None:
            nonlocal said
            if isinstance(what, Doing):
                wait.say(what)
            line = (what.text if isinstance(what, Doing) else what).strip()
            now = self._clock.seconds()
            if now - said >= PAUSE and line:
                said = now
                self._tell_later(attrs.evolve(began, message=line[:LINE]), keep=False)

        running: list[Deferred[T]] = []
        wait = self._waits.begin(self._task_id, reason, name, lambda: running[0].cancel())
        self._tell_later(began)
        try:
            running.append(Deferred.fromCoroutine(work(say)))
            result = await running[0]
        except Exception as error:
            failure = wait.failure() if wait.expired is not None else error
            await self._tell(self._over(began, "failed", _sentence(failure)))
            if isinstance(failure, HostError):
                raise HostError(failure.code, f"{name}: {failure.message}") from error
            raise
        finally:
            wait.end()
        await self._tell(self._over(began, "done", None))
        return result

    def inner(self, say: Say) -> Callable[[Step], None]:
        """Who hears of the steps inside the container, whose names and lines may be anybody's."""

        def heard(step: Step) -> None:
            self._heard += 1
            if self._heard > INNER_LIMIT:
                return
            name = f"setup: {step.step}"
            began = self._inner.get(name)
            if began is None or step.state == "started":
                began = self._inner[name] = self._record(name, "started", None)
            message = step.message[-LAST_WORDS:] if step.message else None
            self._tell_later(
                attrs.evolve(began, state=step.state, message=message, elapsed_ms=step.elapsedMs)
            )
            if step.state == "started":
                say(Doing(_reason_of(step.step), step.step[:LINE]))

        return heard

    def _record(
        self, name: str, state: Literal["started", "done", "failed"], message: str | None
    ) -> StepRecord:
        self._count += 1
        at = int(self._clock.seconds() * 1000)
        return StepRecord(self._task_id, self._attempt, self._count, name, state, message, at, None)

    def _over(self, began: StepRecord, state: Literal["done", "failed"], message: str | None) -> StepRecord:
        elapsed = int(self._clock.seconds() * 1000) - began.started_at
        return attrs.evolve(began, state=state, message=message, elapsed_ms=elapsed)

    async def _tell(self, record: StepRecord, keep: bool = True) -> None:
        at = int(self._clock.seconds() * 1000)
        event = TaskProgress(self._task_id, at, record.name, record.state, record.message, record.elapsed_ms)
        if keep:
            await self._journal.record(event, write=lambda db: rows.put(db, record))
        else:
            await self._journal.emit(event)

    def _tell_later(self, record: StepRecord, keep: bool = True) -> None:
        done = Deferred.fromCoroutine(self._tell(record, keep))
        done.addErrback(lambda failure: log.failure("progress was not stored", failure))


def shown(steps: list[StepRecord]) -> list[Json]:
    """The steps as `taskStatus` gives them."""
    return [
        {
            "step": one.name,
            "state": one.state,
            "message": one.message,
            "startedAt": one.started_at,
            "elapsedMs": one.elapsed_ms,
        }
        for one in steps
    ]


def _reason_of(step: str) -> Reason:
    """What the task waits for during a step inside the container."""
    word = step.partition(" ")[0]
    return {"tools": Reason.TOOLS, "editor": Reason.EDITOR}.get(word, Reason.SETUP)


def _sentence(error: Exception) -> str:
    if isinstance(error, HostError):
        return error.message[-LAST_WORDS:]
    return _CUT if isinstance(error, CancelledError) else "a defect of the host; see its log"
