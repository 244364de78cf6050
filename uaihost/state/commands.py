"""The table `commands`: each command of the bridge and its one result. Functions of an open transaction."""

from __future__ import annotations

import sqlite3

import attrs

_COLUMNS = "id, name, args, received_at, attempts, result, finished_at"


@attrs.frozen
class CommandRecord:
    """args: JSON, None once it has ended or when it was too large to keep; result: JSON of the result,
    None until it has ended or when it was too large to keep; attempts: how often it was begun;
    times: milliseconds since the epoch.
    """

    id: str
    name: str
    args: bytes | None
    received_at: int
    attempts: int
    result: bytes | None
    finished_at: int | None


def find(connection: sqlite3.Connection, command_id: str) -> CommandRecord | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM commands WHERE id = ?", (command_id,)).fetchone()
    return None if row is None else CommandRecord(*row)


def begin(connection: sqlite3.Connection, record: CommandRecord) -> CommandRecord | None:
    """Store a new record; None when it is new, the one that stands there when its id is known."""
    known = find(connection, record.id)
    if known is None:
        connection.execute(
            f"INSERT INTO commands ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", attrs.astuple(record)
        )
    return known


def unfinished(connection: sqlite3.Connection) -> list[CommandRecord]:
    """In the order in which they came."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM commands WHERE finished_at IS NULL ORDER BY seq")
    return [CommandRecord(*row) for row in rows]


def again(connection: sqlite3.Connection, command_id: str) -> None:
    """It is begun once more."""
    connection.execute("UPDATE commands SET attempts = attempts + 1 WHERE id = ?", (command_id,))


def set_back(connection: sqlite3.Connection, command_id: str) -> None:
    """It was cut off in good order: that it was begun does not count."""
    connection.execute("UPDATE commands SET attempts = attempts - 1 WHERE id = ?", (command_id,))


def finish(connection: sqlite3.Connection, command_id: str, result: bytes | None, at: int) -> None:
    """It has ended. Its arguments, which may hold a person's secrets, are not needed any more."""
    connection.execute(
        "UPDATE commands SET result = ?, finished_at = ?, args = NULL WHERE id = ?", (result, at, command_id)
    )


def prune(connection: sqlite3.Connection, before: int) -> int:
    """Forget commands that ended before this time; how many there were."""
    return connection.execute("DELETE FROM commands WHERE finished_at < ?", (before,)).rowcount
