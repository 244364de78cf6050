"""The data folder while no daemon runs: the lock that keeps two processes apart, and work done under it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from uaihost.blocking import Inline
from uaihost.commands.exposed import Exposed
from uaihost.errors import ErrorCode, HostError
from uaihost.events import EventJournal
from uaihost.paths import Folders, data_files
from uaihost.state.database import Database
from uaihost.tunnels.targets import PortTable

T = TypeVar("T")


class DataLock:
    """One process for one data folder: two daemons on one database would each half believe it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise HostError(
                ErrorCode.CONFLICT,
                f"another uaihost uses {path.parent}; stop it, or give this one a folder of its own with "
                "UAI_DATA_DIR",
            ) from None

    def release(self) -> None:
        os.close(self._descriptor)


class OfflineExposures:
    """`expose` and `unexpose` while no daemon runs: on the database itself, under the daemon's lock."""

    def __init__(self, folders: Folders, reactor: Any) -> None:
        self._folders = folders
        self._reactor = reactor

    async def expose(self, task_id: str, ports: Mapping[str, int]) -> None:
        """As `Host.expose`; bridges hear of it when the daemon runs."""
        await self._run(lambda exposed: exposed.expose(task_id, ports))

    async def unexpose(self, task_id: str) -> None:
        """As `Host.unexpose`."""
        await self._run(lambda exposed: exposed.unexpose(task_id))

    async def _run(self, work: Callable[[Exposed], Any]) -> None:
        async def on(database: Database) -> None:
            journal = EventJournal(database, self._reactor)
            await work(Exposed(database, journal, self._reactor, PortTable()))

        await with_database(self._folders, on)


async def with_database(folders: Folders, work: Callable[[Database], Awaitable[T]]) -> T:
    """The result of work on the database while no daemon runs; it waits for nothing.

    Raises:
        HostError: `conflict`: a daemon runs.
    """
    lock = DataLock(folders.lock)
    try:
        database = await Database.open(folders.database, data_files("migrations"), Inline())
        try:
            return await work(database)
        finally:
            await database.close()
    finally:
        lock.release()
