"""Bringing a database to the schema that the code knows: plain forward-only SQL files of one folder.

A file is `NNNN_name.sql`; each is applied once, in a transaction that also records its version. Before an
existing database is changed a copy is put beside it. Nothing here knows what the tables mean.

The floor: code of an older schema may open a newer database as long as its own highest version is not below
the floor. A migration that older code could not live with raises it: `UPDATE schema_floor SET version = N`.
"""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path

import attrs
from twisted.logger import Logger

from uaihost.errors import ErrorCode, HostError, OwnerNeeded

log = Logger()

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql\Z")

_BOOKS = """
CREATE TABLE IF NOT EXISTS schema_versions (
    version INTEGER PRIMARY KEY, name TEXT NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE IF NOT EXISTS schema_floor (version INTEGER NOT NULL);
INSERT INTO schema_floor (version) SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM schema_floor);
"""


class Newer(OwnerNeeded):
    """The database is whole, and a later version's: nothing is to be mended in it."""


@attrs.frozen
class Migration:
    version: int
    name: str
    sql: str


def read(folder: Path) -> list[Migration]:
    """The migrations of a folder, in order; folders below it are not looked at.

    Raises:
        ValueError: a file's name does not fit, or the versions are not 1, 2, 3, ...
    """
    found = []
    for path in sorted(folder.glob("*.sql")):
        matched = _FILE.match(path.name)
        if matched is None:
            raise ValueError(f"{path} is not named NNNN_name.sql")
        found.append(Migration(int(matched[1]), matched[2], path.read_text(encoding="utf-8")))
    if [one.version for one in found] != list(range(1, len(found) + 1)) or not found:
        raise ValueError(f"the migrations in {folder} are not numbered 0001, 0002, ...")
    return found


def upgrade(connection: sqlite3.Connection, path: Path, migrations: list[Migration]) -> None:
    """Bring the open database at `path` to the last of `migrations`, from whatever it has.

    The connection is in autocommit mode (`isolation_level=None`).

    Raises:
        HostError: the file is damaged, foreign, or newer than this code can open. It was not changed.
        sqlite3.Error: a migration failed; the database is as it was before that one.
    """
    try:
        applied = inspect(connection, path, migrations)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise HostError(ErrorCode.UNAVAILABLE, f"{path} cannot be opened: {error}") from error
        raise _damaged(path, str(error)) from error
    wanted = migrations[len(applied) :]
    if not wanted:
        return
    if applied:
        backup(connection, path.with_name(f"{path.name}.before-{wanted[0].version:04}"))
    # Off, so that a migration can rebuild a table that others refer to; checked before each commit.
    connection.execute("PRAGMA foreign_keys = OFF")
    for migration in wanted:
        _apply(connection, migration)
        log.info(
            "{path}: schema {version:04} {name}", path=path, version=migration.version, name=migration.name
        )


def backup(connection: sqlite3.Connection, target: Path) -> None:
    """A whole copy of the open database; it takes its name only when it is complete."""
    beside = target.with_name(f"{target.name}.new")
    beside.unlink(missing_ok=True)
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    copy = sqlite3.connect(beside)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.rename(target)


def schema(connection: sqlite3.Connection) -> list[str]:
    """Every table and index as SQL text, in a fixed order, to compare two databases."""
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, name")
    return [str(sql) for (sql,) in rows]


def inspect(connection: sqlite3.Connection, path: Path, migrations: list[Migration]) -> list[tuple[int, str]]:
    """The versions that the database has; it is only read.

    Raises:
        HostError: as `upgrade`.
        sqlite3.DatabaseError: it cannot be read.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return []
    if not {"schema_versions", "schema_floor"} <= tables:
        raise _foreign(path)
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        raise _damaged(path, problem)
    applied = connection.execute("SELECT version, name FROM schema_versions ORDER BY version").fetchall()
    for (version, name), known in zip(applied, migrations, strict=False):
        if (version, name) != (known.version, known.name):
            raise _foreign(path)
    floor = connection.execute("SELECT version FROM schema_floor").fetchone()[0]
    if len(applied) > len(migrations) and floor > len(migrations):
        raise Newer(
            ErrorCode.CONFLICT,
            f"{path} was written by a newer uaihost: it has schema {len(applied)}, this version knows "
            f"{len(migrations)}, and the lowest that may open it is {floor}; install the newer version "
            f"again, or put a copy {path.name}.before-NNNN in its place",
        )
    return applied


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in (*_statements(_BOOKS), *_statements(migration.sql)):
            connection.execute(statement)
            if not connection.in_transaction:
                raise ValueError(f"migration {migration.version:04} ends the transaction it runs in")
        if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
            raise ValueError(f"migration {migration.version:04} leaves references to rows that do not exist")
        connection.execute(
            "INSERT INTO schema_versions (version, name) VALUES (?, ?)", (migration.version, migration.name)
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(sql: str) -> list[str]:
    """One by one, because `executescript` would commit the transaction."""
    found, pending = [], ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return [*found, pending] if pending.strip() else found


def _foreign(path: Path) -> HostError:
    return OwnerNeeded(
        ErrorCode.CONFLICT, f"{path} is a database of something else; move it away and a new one is made"
    )


def _damaged(path: Path, why: str) -> HostError:
    return OwnerNeeded(
        ErrorCode.CONFLICT,
        f"{path} is damaged or no database ({why}); it was left as it is: put a backup in its place, "
        "or move it away and a new one is made",
    )
