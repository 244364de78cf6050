"""The tables `saved` and `removals`. Functions of an open transaction; records in and out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import attrs

# Removals that are remembered.
KEPT_REMOVALS = 1000

_COLUMNS = (
    "task_id, slug, name, project, branch, commit_id, wip, repository, note, extra, parts, bytes, at"
)
_REMOVAL = "at, class, what, bytes, why, recovery"


@attrs.frozen
class SavedRecord:
    """What was kept of a work copy; with an empty slug, of a task beside its work copies.

    name: of its files in saved/<task_id>; parts: JSON, as workspaces.restore reads it; bytes: of the tar file
    `extra`; at: milliseconds since the epoch.
    """

    task_id: str
    slug: str
    name: str
    project: str
    branch: str
    commit: str
    wip: str | None
    repository: str
    note: str | None
    extra: str | None
    parts: str
    bytes: int
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


def put(connection: sqlite3.Connection, records: Iterable[SavedRecord]) -> None:
    """Store them, each in place of what was known of the same work copy."""
    connection.executemany(
        f"INSERT INTO saved ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (task_id, name) DO UPDATE SET slug = excluded.slug, project = excluded.project, "
        "branch = excluded.branch, commit_id = excluded.commit_id, wip = excluded.wip, "
        "repository = excluded.repository, note = excluded.note, extra = excluded.extra, "
        "parts = excluded.parts, bytes = excluded.bytes, at = excluded.at",
        [attrs.astuple(record) for record in records],
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
    connection.execute(
        f"INSERT INTO removals ({_REMOVAL}) VALUES (?, ?, ?, ?, ?, ?)", attrs.astuple(removal)
    )
    connection.execute(
        "DELETE FROM removals WHERE id <= (SELECT max(id) FROM removals) - ?", (KEPT_REMOVALS,)
    )


def removals(connection: sqlite3.Connection) -> list[Removal]:
    """The newest first."""
    rows = connection.execute(f"SELECT {_REMOVAL} FROM removals ORDER BY id DESC")
    return [Removal(*row) for row in rows]
