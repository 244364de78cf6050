"""The tables `saved` and `removals`. Functions of an open transaction; records in and out."""

from __future__ import annotations

import sqlite3

import attrs

# Removals that are remembered.
KEPT_REMOVALS = 1000

_COLUMNS = "task_id, name, slug, project, key, branch, commit_id, wip, extra, note, parts, size, at"
_REMOVAL = "at, class, what, bytes, why, recovery"


@attrs.frozen
class SavedRecord:
    """What was kept of a work copy; with an empty slug, of a task beside its work copies.

    name: of its files in saved/<task_id>; key: of the repository saved/<key>.git; extra: the path of the tar
    file of what git does not keep, size: its bytes; parts: JSON, as workspaces.restore reads it; at:
    milliseconds since the epoch.
    """

    task_id: str
    name: str
    slug: str
    project: str
    key: str
    branch: str
    commit: str
    wip: str | None
    extra: str | None
    note: str | None
    parts: bytes
    size: int
    at: int


@attrs.frozen
class Removal:
    """Something that was removed to free disk. at: milliseconds since the epoch."""

    at: int
    kind: str
    what: str
    bytes: int
    why: str
    recovery: str


def put(connection: sqlite3.Connection, record: SavedRecord) -> None:
    """Store it, in place of what was known of the same work copy."""
    changed = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS.split(", "))
    connection.execute(
        f"INSERT INTO saved ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        f"ON CONFLICT (task_id, name) DO UPDATE SET {changed}",
        attrs.astuple(record),
    )


def every(connection: sqlite3.Connection, task_id: str | None = None) -> list[SavedRecord]:
    """All, or those of one task, the newest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM saved WHERE ? IS NULL OR task_id = ? ORDER BY at DESC, task_id, name",
        (task_id, task_id),
    )
    return [SavedRecord(*row) for row in rows]


def removed(connection: sqlite3.Connection, removal: Removal) -> None:
    """Remember it; the oldest are forgotten."""
    connection.execute(f"INSERT INTO removals ({_REMOVAL}) VALUES (?, ?, ?, ?, ?, ?)", attrs.astuple(removal))
    connection.execute(
        "DELETE FROM removals WHERE id <= (SELECT max(id) FROM removals) - ?", (KEPT_REMOVALS,)
    )


def removals(connection: sqlite3.Connection) -> list[Removal]:
    """The newest first."""
    rows = connection.execute(f"SELECT {_REMOVAL} FROM removals ORDER BY id DESC")
    return [Removal(*row) for row in rows]
