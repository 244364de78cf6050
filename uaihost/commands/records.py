"""The rows of tasks: every change together with its event, and what each task waits for told the same way.

It knows tables, the journal and the table of states; what is done to a task is not its business.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from uaihost.commands.lifecycle import Input, Status, step
from uaihost.commands.waits import Waits
from uaihost.interfaces import Journal, Store
from uaihost.state import tasks as rows
from uaihost.state.tasks import TaskRecord
from uaihost.wire.codec import encode_value
from uaihost.wire.events import Event, TaskStatus
from uaihost.wire.reasons import Reason, Waiting

log = Logger()

# What stood for these reasons is over when the task moves.
_PASSING = (Reason.PARKED, Reason.RESTART, Reason.ENGINE)


class Records:
    """waits: what tasks wait for. census: held while containers that no row knows are looked for, and by
    whoever makes a task that may have one.
    """

    def __init__(self, store: Store, journal: Journal, clock: IReactorTime) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock
        self.waits = Waits(clock, self._tell_later)
        self.census = DeferredLock()
        # The status and message that were told last, known before the row is written.
        self._told: dict[str, tuple[str, str | None]] = {}
        # How often each thing happened to a task since the start.
        self.happened = dict.fromkeys(Input, 0)

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return int(self._clock.seconds() * 1000)

    async def find(self, task_id: str) -> TaskRecord | None:
        return await self._store.run(lambda db: rows.find(db, task_id))

    async def every(self) -> list[TaskRecord]:
        return await self._store.run(rows.every)

    async def current(self, record: TaskRecord) -> TaskRecord:
        """The row as it is now."""
        return await self.find(record.id) or record

    async def restore(self) -> None:
        """After a start of the daemon: parked tasks wait on, and nothing else that was waited for is true."""
        for record in await self.every():
            waiting = waiting_in(record)
            if waiting is not None and parked(record):
                self.waits.stand(record.id, Reason.PARKED, waiting.text, waiting.since)
                self.waits.quiet(record.id)
            elif waiting is not None and self.waits.now(record.id) is None:
                await self._tell(record.id)

    async def move(
        self,
        record: TaskRecord,
        happened: Input,
        *,
        message: str | None = None,
        events: tuple[Event, ...] = (),
        write: Callable[[sqlite3.Connection], object] = lambda db: None,
        stand: tuple[Reason, str] | None = None,
        **changes: Any,
    ) -> TaskRecord:
        """The record after `happened`, stored together with its events.

        events, write: what else is told and written with it. stand: what the task waits for from then on.

        Raises:
            HostError: `conflict`, that cannot happen in this state.
        """
        status = step(Status(record.status), happened)
        moved = attrs.evolve(record, status=status, message=message, updated_at=self.now(), **changes)
        self.waits.lift(record.id, *_PASSING)
        if stand is not None:
            self.waits.stand(record.id, *stand)
        self.waits.quiet(record.id)
        waiting = self.waits.now(record.id)
        self._told[record.id] = (status, message)

        def store(connection: sqlite3.Connection) -> None:
            rows.put(connection, moved)
            rows.put_waiting(connection, record.id, None if waiting is None else encode_value(waiting))
            write(connection)

        event = TaskStatus(record.id, moved.updated_at, status, message, waiting)
        await self._journal.record(event, *events, write=store)
        self.happened[happened] += 1
        return moved

    def _tell_later(self, task_id: str) -> None:
        told = Deferred.fromCoroutine(self._tell(task_id))
        told.addErrback(
            lambda failure: log.failure("what {task} waits for was not told", failure, task=task_id)
        )

    async def _tell(self, task_id: str) -> None:
        """What the task waits for now, in its row and as an event."""
        if task_id not in self._told:
            record = await self.find(task_id)
            if record is None:
                return  # It waits for its turn to become a task at all.
            self._told.setdefault(task_id, (record.status, record.message))
        # From here to the transaction nothing is awaited: a later move is told later.
        status, message = self._told[task_id]
        waiting = self.waits.now(task_id)
        text = None if waiting is None else encode_value(waiting)
        await self._journal.record(
            TaskStatus(task_id, self.now(), status, message, waiting),
            write=lambda db: rows.put_waiting(db, task_id, text),
        )


def waiting_in(record: TaskRecord) -> Waiting | None:
    """What the row says that the task waits for."""
    return None if record.waiting is None else msgspec.json.decode(record.waiting, type=Waiting)


def parked(record: TaskRecord) -> bool:
    """Whether it ran when the machine was restarted and has not been used since."""
    waiting = waiting_in(record)
    return record.status == Status.STOPPED and waiting is not None and waiting.reason is Reason.PARKED
