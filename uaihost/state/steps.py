"""The tables `task_steps` and `machine`. Functions of an open transaction; records in and out."""

from __future__ import annotations

import sqlite3
from typing import Literal

import attrs

# Attempts whose steps are kept, and steps of one attempt: a container names its own, and may name many.
KEPT_ATTEMPTS = 4
STEP_LIMIT = 300

_COLUMNS = "task_id, attempt, position, name, state, message, started_at, elapsed_ms"


@attrs.frozen
class StepRecord:
    """A step of one attempt to bring a task up or down.

    attempt, position: from 1. message: for people, of a failed one its last lines. started_at: milliseconds
    since the epoch; elapsed_ms: None while it goes on, or when the daemon was cut off in it.
    """

    task_id: str
    attempt: int
    position: int
    name: str
    state: Literal["started", "done", "failed"]
    message: str | None
    started_at: int
    elapsed_ms: int | None


def begin(connection: sqlite3.Connection, task_id: str) -> int:
    """The number of a new attempt; old attempts are forgotten."""
    (last,) = connection.execute(
        "SELECT coalesce(max(attempt), 0) FROM task_steps WHERE task_id = ?", (task_id,)
    ).fetchone()
    number = int(last) + 1
    connection.execute(
        "DELETE FROM task_steps WHERE task_id = ? AND attempt <= ?", (task_id, number - KEPT_ATTEMPTS)
    )
    return number


def put(connection: sqlite3.Connection, step: StepRecord) -> None:
    """Store the step, in place of what was known of it; one beyond STEP_LIMIT is left out."""
    if step.position <= STEP_LIMIT:
        connection.execute(
            f"INSERT INTO task_steps ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET state = excluded.state, message = excluded.message, "
            "elapsed_ms = excluded.elapsed_ms",
            attrs.astuple(step),
        )


def last(connection: sqlite3.Connection, task_id: str) -> list[StepRecord]:
    """The steps of the last attempt, in order."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM task_steps WHERE task_id = ? "
        "AND attempt = (SELECT max(attempt) FROM task_steps WHERE task_id = ?) ORDER BY position",
        (task_id, task_id),
    )
    return [StepRecord(*row) for row in rows]


def boot(connection: sqlite3.Connection) -> str | None:
    """The id of the boot in which the daemon ran last; None when it never ran."""
    row = connection.execute("SELECT value FROM machine WHERE name = 'boot'").fetchone()
    return None if row is None else str(row[0])


def put_boot(connection: sqlite3.Connection, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO machine (name, value) VALUES ('boot', ?)", (value,))
