"""What is known of tasks, for whoever asks: taskStatus, the local API, the pages. It only looks."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from uaihost.commands import progress
from uaihost.commands.lifecycle import Status
from uaihost.commands.previews import value
from uaihost.commands.records import Records, waiting_in
from uaihost.commands.surroundings import Surroundings
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Json, Store
from uaihost.state import steps
from uaihost.state import tasks as rows
from uaihost.state.steps import StepRecord
from uaihost.state.tasks import PortRecord, TaskRecord


class Overview:
    def __init__(self, store: Store, around: Surroundings, records: Records) -> None:
        self._store = store
        self._around = around
        self._records = records

    async def tasks(self, task_id: str | None) -> list[Json]:
        """Every task, or the one, as its rows and this daemon's memory have it; the engine is not asked.

        Each: `{id, slug, branch, status, message, waiting, steps, report, ended, codeServerPort,
        previewPorts, memoryLimit, updatedAt}`; `ended` is the last end of its container that nobody asked
        for, `{at, exitCode, outOfMemory, text}`.
        """

        def read(
            connection: sqlite3.Connection,
        ) -> list[tuple[TaskRecord, list[PortRecord], list[StepRecord]]]:
            found = rows.every(connection)
            return [
                (one, rows.ports(connection, one.id), steps.last(connection, one.id))
                for one in found
                if task_id in (None, one.id)
            ]

        return [
            {
                "id": record.id,
                "slug": record.slug,
                "branch": record.branch,
                **msgspec.to_builtins(value(record.status, ports)),
                **self._known(record, found),
                "updatedAt": record.updated_at,
            }
            for record, ports, found in await self._store.run(read)
        ]

    async def status(self, record: TaskRecord) -> Json:
        """The value of taskStatus: also what the engine says now.

        Raises:
            HostError: `unavailable` while the engine does not answer.
        """
        task_id = record.id
        container = await self._around.engine.find(task_id)
        runs = container is not None and container.state == "running"
        status = record.status
        if status == Status.RUNNING and not runs:
            status = Status.STOPPED

        def read(connection: sqlite3.Connection) -> tuple[list[PortRecord], list[StepRecord]]:
            return rows.ports(connection, task_id), steps.last(connection, task_id)

        ports, found = await self._store.run(read)
        return {
            **value(status, ports if status == Status.RUNNING else []),
            "memoryBytes": await self._memory(task_id) if runs else 0,
            "startedAt": container.started_at if container is not None and runs else None,
            "agents": [{"id": one.id, "state": one.state} for one in self._around.channels.states(task_id)],
            **self._known(record, found),
        }

    def _known(self, record: TaskRecord, found: list[StepRecord]) -> Json:
        """What both answers say; what waits is memory's word, and the row's where memory has none."""
        waiting = self._records.waits.now(record.id) or waiting_in(record)
        return {
            "message": record.message,
            "waiting": None if waiting is None else msgspec.to_builtins(waiting),
            "steps": progress.shown(found),
            "report": _json(record.report),
            "ended": _json(record.ended),
            "memoryLimit": self._around.limits.memory,
        }

    async def _memory(self, task_id: str) -> int:
        try:
            return (await self._around.engine.usage(task_id)).memory
        except HostError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return 0  # It ended just now.
            raise


def _json(text: bytes | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
