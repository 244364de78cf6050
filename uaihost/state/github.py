"""The table of users' connections to GitHub (migrations/0008_github.sql): SQL in, records out."""

from __future__ import annotations

from sqlite3 import Connection

import attrs

_COLUMNS = "user_id, form, login, host, secret, generation, begun, problem, at"


@attrs.frozen
class GitHubRow:
    """secret: sealed; what it holds only the credentials' room can read.

    generation: grows with every secret. begun: when an exchange was sent whose answer is not known. problem:
    why GitHub has ended the connection. Times: milliseconds since the epoch.
    """

    user_id: str
    form: str
    login: str
    host: str
    secret: bytes = attrs.field(repr=False)
    generation: int
    begun: int | None
    problem: str | None
    at: int


def connections(db: Connection) -> list[GitHubRow]:
    rows = db.execute(f"SELECT {_COLUMNS} FROM github_connections ORDER BY user_id")
    return [GitHubRow(*row) for row in rows]


def put(db: Connection, row: GitHubRow) -> None:
    """Store it in place of what was there."""
    db.execute(
        f"INSERT OR REPLACE INTO github_connections ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        attrs.astuple(row),
    )


def begin(db: Connection, user_id: str, generation: int, at: int) -> bool:
    """An exchange is about to be sent; False when that generation is not there any more.

    An earlier one whose answer is not known stays the one that is noted.
    """
    changed = db.execute(
        "UPDATE github_connections SET begun = coalesce(begun, ?) WHERE user_id = ? AND generation = ?",
        (at, user_id, generation),
    )
    return changed.rowcount == 1


def undo(db: Connection, user_id: str, generation: int) -> None:
    """The exchange of this generation is known not to have happened."""
    db.execute(
        "UPDATE github_connections SET begun = NULL WHERE user_id = ? AND generation = ?",
        (user_id, generation),
    )


def renew(db: Connection, row: GitHubRow, generation: int) -> bool:
    """Put `row` in place of that generation; False, and nothing is stored, when it is gone."""
    found = db.execute(
        "SELECT 1 FROM github_connections WHERE user_id = ? AND generation = ?", (row.user_id, generation)
    ).fetchone()
    if found is None:
        return False
    put(db, row)
    return True


def end(db: Connection, user_id: str, generation: int, problem: str | None) -> None:
    """GitHub has ended the connection, or, with None, has not."""
    db.execute(
        "UPDATE github_connections SET problem = ? WHERE user_id = ? AND generation = ?",
        (problem, user_id, generation),
    )


def remove(db: Connection, user_id: str) -> None:
    db.execute("DELETE FROM github_connections WHERE user_id = ?", (user_id,))
