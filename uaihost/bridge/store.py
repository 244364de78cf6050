"""The bridge's tables: SQL in, records out. Every function runs inside a transaction of the database.

Who calls it decides when; it knows neither hosts nor the API.
"""

from __future__ import annotations

import json
import math
import sqlite3
from typing import Any, Literal

import attrs

Phase = Literal["up", "channel", "prompt", "ready", "failed", "down", "gone", "exposed"]


@attrs.frozen
class HostRecord:
    """A host that was once connected. capabilities: as it last sent them; seen_at: ms since the epoch."""

    id: str
    capabilities: dict[str, Any]
    seen_at: int


@attrs.frozen
class TaskRecord:
    """A task.

    status, message: as the host last reported. phase: how far the bridge has brought it (bridge.tasks).
    spec: the argument of taskUp; None for a task exposed on its host. previews: `{name, containerPort,
    hostPort}` each. waiting: `{reason, text, since, percent?, deadline?}`, why it does not move now.
    """

    id: str
    host_id: str
    name: str
    status: str
    message: str | None
    phase: Phase
    spec: dict[str, Any] | None
    prompt: str | None
    previews: list[dict[str, Any]]
    has_editor: bool
    created_at: int
    waiting: dict[str, Any] | None = None


@attrs.frozen
class Arrival:
    """An event as it came from a host. seq: the host's number for it, if it gives any."""

    host_id: str
    seq: int | None
    at: int
    task_id: str
    type: str
    body: dict[str, Any]


@attrs.frozen
class Stored:
    """What became of an arrival. id: its row, None when it has none. task: its record if that changed."""

    id: int | None
    task: TaskRecord | None


@attrs.frozen
class Pending:
    """A command without a result."""

    id: str
    host_id: str
    name: str
    args: list[Any]
    task_id: str | None
    created_at: int


# ---- hosts


def save_host(db: sqlite3.Connection, host: HostRecord) -> None:
    """Insert or replace."""
    db.execute(
        "INSERT INTO hosts (id, capabilities, seen_at) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
        "capabilities = excluded.capabilities, seen_at = excluded.seen_at",
        (host.id, json.dumps(host.capabilities), host.seen_at),
    )


def hosts(db: sqlite3.Connection) -> list[HostRecord]:
    """Every host, by id."""
    rows = db.execute("SELECT id, capabilities, seen_at FROM hosts ORDER BY id")
    return [HostRecord(row[0], json.loads(row[1]), row[2]) for row in rows]


# ---- tasks

_TASK = "id, host_id, name, status, message, phase, spec, prompt, previews, has_editor, created_at, waiting"


def add_task(db: sqlite3.Connection, task: TaskRecord) -> None:
    """Insert."""
    db.execute(
        f"INSERT INTO tasks ({_TASK}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            task.id,
            task.host_id,
            task.name,
            task.status,
            task.message,
            task.phase,
            None if task.spec is None else json.dumps(task.spec),
            task.prompt,
            json.dumps(task.previews),
            int(task.has_editor),
            task.created_at,
            None if task.waiting is None else json.dumps(task.waiting),
        ),
    )


def change_task(db: sqlite3.Connection, task_id: str, **columns: Any) -> TaskRecord:
    """Set some columns of an existing task; the whole record as it is then."""
    for name in ("previews", "waiting"):
        if columns.get(name) is not None:
            columns[name] = json.dumps(columns[name])
    # The names come from this package's code only.
    sets = ", ".join(f"{name} = ?" for name in columns)
    db.execute(f"UPDATE tasks SET {sets} WHERE id = ?", (*columns.values(), task_id))
    found = task(db, task_id)
    assert found is not None, "only existing tasks are changed"
    return found


def task(db: sqlite3.Connection, task_id: str) -> TaskRecord | None:
    """One task."""
    row = db.execute(f"SELECT {_TASK} FROM tasks WHERE id = ?", (task_id,)).fetchone()
    return None if row is None else _task(row)


def tasks(db: sqlite3.Connection) -> list[TaskRecord]:
    """Every task, oldest first."""
    return [_task(row) for row in db.execute(f"SELECT {_TASK} FROM tasks ORDER BY created_at, id")]


def _task(row: Any) -> TaskRecord:
    id, host_id, name, status, message, phase, spec, prompt, previews, has_editor, created_at, waiting = row
    return TaskRecord(
        id,
        host_id,
        name,
        status,
        message,
        phase,
        None if spec is None else json.loads(spec),
        prompt,
        json.loads(previews),
        bool(has_editor),
        created_at,
        None if waiting is None else json.loads(waiting),
    )


# ---- events


def add_arrivals(db: sqlite3.Connection, arrivals: list[Arrival]) -> list[Stored | None]:
    """Store events in order and apply them to their tasks; None for a repeat or for another host's task."""
    return [_add_arrival(db, arrival) for arrival in arrivals]


def _add_arrival(db: sqlite3.Connection, arrival: Arrival) -> Stored | None:
    known = task(db, arrival.task_id)
    if known is not None and known.host_id != arrival.host_id:
        return None
    if known is not None and _only_waits(known, arrival):
        return Stored(None, _apply(db, known, arrival))
    done = db.execute(
        "INSERT OR IGNORE INTO events (host_id, host_seq, at, task_id, type, body) VALUES (?, ?, ?, ?, ?, ?)",
        (
            arrival.host_id,
            arrival.seq,
            arrival.at,
            arrival.task_id,
            arrival.type,
            json.dumps(arrival.body),
        ),
    )
    if done.rowcount != 1:
        return None
    assert done.lastrowid is not None
    return Stored(done.lastrowid, _apply(db, known, arrival))


def _only_waits(known: TaskRecord, arrival: Arrival) -> bool:
    """Whether the event says no more than how the same wait goes on: the record keeps that, not the log."""
    body = arrival.body
    return (
        arrival.type == "task.status"
        and isinstance(body.get("waiting"), dict)
        and (body.get("status"), body.get("message")) == (known.status, known.message)
    )


def _apply(db: sqlite3.Connection, known: TaskRecord | None, arrival: Arrival) -> TaskRecord | None:
    """Bring a task's record up to date with an event; the record if that changed it.

    A task that the bridge did not make was exposed on its host: the first word of it makes its record.
    """
    body = arrival.body
    columns: dict[str, Any] = {}
    status = body.get("status")
    previews = body.get("previewPorts")
    if arrival.type == "task.status" and isinstance(status, str):
        message, waiting = body.get("message"), body.get("waiting")
        columns = {
            "status": status,
            "message": message if isinstance(message, str) else None,
            "waiting": waiting if isinstance(waiting, dict) else None,
        }
        if known is None or known.phase in ("exposed", "gone"):
            exposed = known is None or known.spec is None
            if exposed:
                columns["phase"] = "gone" if status == "stopped" else "exposed"
    elif arrival.type == "ports.changed" and isinstance(previews, list):
        columns = {"previews": [port for port in previews if isinstance(port, dict)]}
    if not columns:
        return None
    if known is None:
        add_task(
            db,
            TaskRecord(
                id=arrival.task_id,
                host_id=arrival.host_id,
                name=arrival.task_id,
                status="running",
                message=None,
                phase="exposed",
                spec=None,
                prompt=None,
                previews=[],
                has_editor=False,
                created_at=arrival.at,
            ),
        )
    return change_task(db, arrival.task_id, **columns)


def events(
    db: sqlite3.Connection, after: int, limit: int, task_id: str | None = None
) -> list[tuple[int, str]]:
    """Rows after the id `after`: their ids and bodies, in order, of one task or of all."""
    if task_id is None:
        rows = db.execute("SELECT id, body FROM events WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
    else:
        rows = db.execute(
            "SELECT id, body FROM events WHERE task_id = ? AND id > ? ORDER BY id LIMIT ?",
            (task_id, after, limit),
        )
    return [(row[0], row[1]) for row in rows]


def recent_events(db: sqlite3.Connection, task_id: str, limit: int) -> list[tuple[int, str]]:
    """The newest rows of a task, in order."""
    rows = db.execute(
        "SELECT id, body FROM events WHERE task_id = ? ORDER BY id DESC LIMIT ?", (task_id, limit)
    )
    return [(row[0], row[1]) for row in rows][::-1]


def last_event(db: sqlite3.Connection) -> int:
    """The id of the newest event; 0 when there is none."""
    return int(db.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0])


def usage(db: sqlite3.Connection, task_id: str) -> dict[str, dict[str, Any]]:
    """What each agent of a task has used: `{inputTokens, outputTokens, costUsd}` by its id.

    costUsd: US dollars; None where no agent's program told any.
    """
    found: dict[str, dict[str, Any]] = {}
    rows = db.execute(
        "SELECT body FROM events WHERE task_id = ? AND type = 'agent.usage' ORDER BY id", (task_id,)
    )
    for (text,) in rows:
        body = json.loads(text)
        empty = {"inputTokens": 0, "outputTokens": 0, "costUsd": None}
        sums = found.setdefault(str(body.get("agentId")), empty)
        for name in sums:
            value = body.get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                sums[name] = (sums[name] or 0) + value
    return found


# ---- commands


def add_command(db: sqlite3.Connection, command: Pending) -> None:
    """Insert."""
    db.execute(
        "INSERT INTO commands (id, host_id, name, args, task_id, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        (
            command.id,
            command.host_id,
            command.name,
            json.dumps(command.args),
            command.task_id,
            command.created_at,
        ),
    )


def remove_command(db: sqlite3.Connection, command_id: str) -> None:
    """It has its result, or nobody waits for it any more."""
    db.execute("DELETE FROM commands WHERE id = ?", (command_id,))


def commands(db: sqlite3.Connection) -> list[Pending]:
    """Every pending command, oldest first."""
    rows = db.execute(
        "SELECT id, host_id, name, args, task_id, created_at FROM commands ORDER BY created_at, id"
    )
    return [Pending(row[0], row[1], row[2], json.loads(row[3]), row[4], row[5]) for row in rows]
