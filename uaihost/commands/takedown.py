"""A task's way down: agents stopped, work put away, container and folders removed, in this order.

Nothing is removed before what it holds is safe. Which tasks go down, and when, is its caller's
(commands.tasks), as are the states before and after.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import attrs

from uaihost.commands import kept
from uaihost.commands.lanes import to_the_end
from uaihost.commands.lifecycle import Input
from uaihost.commands.places import TaskPlaces
from uaihost.commands.progress import Progress
from uaihost.commands.records import Records
from uaihost.commands.surroundings import Surroundings
from uaihost.errors import HostError
from uaihost.interfaces import Say, Store
from uaihost.state import tasks as rows
from uaihost.state.tasks import TaskRecord
from uaihost.wire.codec import encode_value
from uaihost.wire.events import PortsChanged
from uaihost.wire.reasons import Reason
from uaihost.workspaces.workspaces import Saved


class TakeDown:
    """progress: what is reported of a task; let_go: nothing of the task is reached or served any more."""

    def __init__(
        self,
        store: Store,
        around: Surroundings,
        places: TaskPlaces,
        records: Records,
        progress: Callable[[str], Awaitable[Progress]],
        let_go: Callable[[str], None],
    ) -> None:
        self._store = store
        self._around = around
        self._places = places
        self._records = records
        self._progress = progress
        self._let_go = let_go

    async def all(self, record: TaskRecord, slugs: Sequence[str]) -> TaskRecord:
        """Take a `stopping` task down; its record with what was saved. slugs: of projects it should have.

        Raises:
            HostError: it says what is kept.
        """
        record = await self._take_down(record, slugs, self.remove)
        await self._gone(record)
        return record

    async def but_attachments(self, record: TaskRecord, why: str) -> None:
        """The same, but what was attached stays. why: for people."""
        await self._gone(await self._take_down(record, [], self._clear), why)

    async def keep(self, record: TaskRecord) -> list[Saved]:
        """Store what a task holds, which stays as it is.

        Raises:
            HostError: something could not be kept; then nothing may be removed.
        """
        found = await self._around.workspaces.save(record.id, await self._places.slugs(record.id))
        await self._store.run(lambda db: kept.put(db, record.id, found, self._records.now()))
        return found

    async def _take_down(
        self, record: TaskRecord, slugs: Sequence[str], remove: Callable[[str], Coroutine[Any, Any, None]]
    ) -> TaskRecord:
        """The record of a `stopping` task with what was saved; `remove` was called after that."""
        task_id = record.id
        progress = await self._progress(task_id)
        try:
            await progress.step("channel", Reason.AGENTS, lambda say: self._around.channels.teardown(task_id))
            if record.saved is None:
                record = await self._save(record, slugs, progress)
            self._let_go(task_id)
            await progress.step("remove", Reason.REMOVING, lambda say: remove(task_id))
        except _NotSaved as error:
            why = f"{error.message}; nothing was removed: put that right and send taskDown again"
            await self._records.move(record, Input.NOT_SAVED, message=why)
            raise HostError(error.code, why) from error
        except Exception as error:
            sentence = error.message if isinstance(error, HostError) else "a defect of the host; see its log"
            await self._records.move(record, Input.BROKE, message=f"{sentence}; send taskDown again")
            raise
        return record

    async def _save(self, record: TaskRecord, named: Sequence[str], progress: Progress) -> TaskRecord:
        """The record with what was saved, which is also stored: from then on the work copies may go."""
        workspaces, engine = self._around.workspaces, self._around.engine

        async def once_more(say: Say) -> list[Saved]:
            # What ran in the container could write to its very end.
            return await workspaces.save(record.id, slugs)

        try:
            slugs = sorted({*named, *await self._places.slugs(record.id)})
            await progress.step("save", Reason.SAVING, lambda say: workspaces.save(record.id, slugs))
        except HostError as error:
            raise _NotSaved(error.code, error.message) from error
        await progress.step("container", Reason.REMOVING, lambda say: to_the_end(engine.remove(record.id)))
        try:
            found = await progress.step("save", Reason.SAVING, once_more)
        except HostError as error:
            raise _NotSaved(error.code, error.message) from error
        done = attrs.evolve(record, saved=encode_value([one.value() for one in found if one.slug]))

        def store(db: sqlite3.Connection) -> None:
            rows.put(db, done)
            kept.put(db, record.id, found, self._records.now())

        await self._store.run(store)
        return done

    async def remove(self, task_id: str) -> None:
        await to_the_end(self._around.engine.remove(task_id))
        await self._around.workspaces.remove(task_id)

    async def _clear(self, task_id: str) -> None:
        await to_the_end(self._around.engine.remove(task_id))
        await self._places.clear(task_id)

    async def _gone(self, record: TaskRecord, why: str | None = None) -> None:
        await self._records.move(
            record,
            Input.GONE,
            message=why,
            events=(PortsChanged(record.id, self._records.now(), []),),
            write=lambda db: rows.put_ports(db, record.id, []),
            # The input may hold secrets of the person's environment, and is not needed any more.
            input=None,
            ran=False,
        )


class _NotSaved(HostError):
    """The work is not safe, so nothing may be removed."""
