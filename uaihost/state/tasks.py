"""The tables `tasks`, `ports` and `exposed`. Functions of an open transaction; records in and out."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Literal

import attrs

_COLUMNS = "id, slug, branch, status, message, input, ran, saved, updated_at"
# Written one by one, by whoever learns them: `put` leaves them as they are.
_ASIDE = "waiting, report, ended, restarts"


@attrs.frozen
class TaskRecord:
    """A task as this host knows it.

    status: one of wire.inputs.TASK_STATUSES; message: why, for people.
    input: JSON of the taskUp argument, None when it is not to be started again (it may hold secrets).
    ran: its container was up, so its work copies may hold work.
    saved: JSON of what taskDown put away; None while there may be work that is not put away.
    updated_at: milliseconds since the epoch.
    waiting, report, ended: JSON, as in migrations/0003; restarts: JSON list of times. Only read here.
    """

    id: str
    slug: str
    branch: str
    status: str
    message: str | None = None
    input: bytes | None = None
    ran: bool = attrs.field(default=False, converter=bool)
    saved: bytes | None = None
    updated_at: int = 0
    waiting: bytes | None = None
    report: bytes | None = None
    ended: bytes | None = None
    restarts: bytes = b"[]"


@attrs.frozen
class PortRecord:
    """Where a container's port is reached on 127.0.0.1. The editor's name is empty."""

    target: Literal["editor", "preview"]
    name: str
    container_port: int
    host_port: int


@attrs.frozen
class Exposure:
    """A task without a container: names to ports of this machine; at: milliseconds since the epoch."""

    task_id: str
    ports: Mapping[str, int]
    at: int


def find(connection: sqlite3.Connection, task_id: str) -> TaskRecord | None:
    found = connection.execute(f"SELECT {_COLUMNS}, {_ASIDE} FROM tasks WHERE id = ?", (task_id,)).fetchone()
    return None if found is None else TaskRecord(*found)


def every(connection: sqlite3.Connection) -> list[TaskRecord]:
    found = connection.execute(f"SELECT {_COLUMNS}, {_ASIDE} FROM tasks ORDER BY id")
    return [TaskRecord(*row) for row in found]


def put(connection: sqlite3.Connection, record: TaskRecord) -> None:
    """Store it, in place of what was known of that task; what is learned aside is left as it is."""
    connection.execute(
        f"INSERT INTO tasks ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
        "slug = excluded.slug, branch = excluded.branch, status = excluded.status, "
        "message = excluded.message, input = excluded.input, ran = excluded.ran, saved = excluded.saved, "
        "updated_at = excluded.updated_at",
        attrs.astuple(record)[: len(_COLUMNS.split(", "))],
    )


def put_waiting(connection: sqlite3.Connection, task_id: str, waiting: bytes | None) -> None:
    connection.execute("UPDATE tasks SET waiting = ? WHERE id = ?", (waiting, task_id))


def put_report(connection: sqlite3.Connection, task_id: str, report: bytes) -> None:
    connection.execute("UPDATE tasks SET report = ? WHERE id = ?", (report, task_id))


def put_ended(connection: sqlite3.Connection, task_id: str, ended: bytes | None) -> None:
    connection.execute("UPDATE tasks SET ended = ? WHERE id = ?", (ended, task_id))


def put_restarts(connection: sqlite3.Connection, task_id: str, restarts: bytes) -> None:
    connection.execute("UPDATE tasks SET restarts = ? WHERE id = ?", (restarts, task_id))


def ports(connection: sqlite3.Connection, task_id: str) -> list[PortRecord]:
    """In the order in which they were put."""
    rows = connection.execute(
        "SELECT target, name, container_port, host_port FROM ports WHERE task_id = ? ORDER BY rowid",
        (task_id,),
    )
    return [PortRecord(*row) for row in rows]


def put_ports(connection: sqlite3.Connection, task_id: str, found: list[PortRecord]) -> None:
    """All ports of the task, in place of those that were known."""
    connection.execute("DELETE FROM ports WHERE task_id = ?", (task_id,))
    connection.executemany(
        "INSERT INTO ports (task_id, target, name, container_port, host_port) VALUES (?, ?, ?, ?, ?)",
        [(task_id, *attrs.astuple(port)) for port in found],
    )


def exposure(connection: sqlite3.Connection, task_id: str) -> Exposure | None:
    found = [one for one in exposures(connection) if one.task_id == task_id]
    return found[0] if found else None


def exposures(connection: sqlite3.Connection) -> list[Exposure]:
    by_task: dict[str, dict[str, int]] = {}
    times: dict[str, int] = {}
    rows = connection.execute("SELECT task_id, name, port, at FROM exposed ORDER BY task_id, rowid")
    for task_id, name, port, at in rows:
        by_task.setdefault(task_id, {})[name] = port
        times[task_id] = at
    return [Exposure(task_id, names, times[task_id]) for task_id, names in by_task.items()]


def put_exposure(connection: sqlite3.Connection, exposed: Exposure) -> None:
    """Store it, in place of what was exposed under that id."""
    drop_exposure(connection, exposed.task_id)
    connection.executemany(
        "INSERT INTO exposed (task_id, name, port, at) VALUES (?, ?, ?, ?)",
        [(exposed.task_id, name, port, exposed.at) for name, port in exposed.ports.items()],
    )


def drop_exposure(connection: sqlite3.Connection, task_id: str) -> bool:
    """Whether there was one."""
    return connection.execute("DELETE FROM exposed WHERE task_id = ?", (task_id,)).rowcount > 0
