"""The database: one SQLite file, one connection, one thread. It does not know what is in the tables."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.state import migration

T = TypeVar("T")

# Milliseconds that another process (a backup, the command line) may hold the file before we give up.
BUSY_TIMEOUT = 5_000


class Database:
    """interfaces.Store on a file. Made by `open`.

    blocking: where every call runs. It must run one at a time in the order they were made
    (`blocking.Threads` with a limit of 1); it stays its owner's, who stops it after `close`.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, blocking: Blocking) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._path = path
        self._blocking = blocking

    @classmethod
    async def open(cls, path: Path, migrations: Path, blocking: Blocking) -> Database:
        """Open or make the file (mode 0600) and bring it to the schema of the folder `migrations`.

        Raises:
            HostError: the file is damaged, foreign, or too new; it was not changed.
        """
        return cls(await blocking.call(_open, path, migrations), path, blocking)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work` in one transaction; an exception that it raises undoes it and comes back.

        Calls run in the order they were made, and come back in that order.

        Raises:
            HostError: `unavailable`: the database is closed, or its disk is full.
        """
        return await self._blocking.call(self._transaction, work)

    async def close(self) -> None:
        """After what was begun. Later calls fail."""
        await self._blocking.call(self._close)

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection
        if connection is None:
            raise HostError(ErrorCode.UNAVAILABLE, f"{self._path} is closed; the host is shutting down")
        try:
            connection.execute("BEGIN IMMEDIATE")
            done = work(connection)
            if not connection.in_transaction:
                raise AssertionError("the work ended the transaction it ran in")
            connection.execute("COMMIT")
            return done
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise HostError(
                    ErrorCode.UNAVAILABLE, f"the disk that holds {self._path} is full; free some space"
                ) from error
            raise

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _open(path: Path, folder: Path) -> sqlite3.Connection:
    known = migration.read(folder)
    try:
        # The files that SQLite puts beside it get the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise HostError(ErrorCode.UNAVAILABLE, f"{path} cannot be opened: {error.strerror}") from error
    # The pool may replace its one thread, but never runs two calls at once.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
        migration.upgrade(connection, path, known)
        connection.execute("PRAGMA journal_mode = WAL")
        # What was told to the bridge must outlive a power cut, hence not NORMAL.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection
