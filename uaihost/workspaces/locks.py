"""Locks with names, held across processes too: the command line may work beside the daemon."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import DeferredLock
from twisted.internet.task import deferLater

# Seconds between two looks at a lock that another process holds: they cannot tell one another.
_LOOK = 0.05


class Locks:
    """Locks as files of `folder`, which are never removed: two processes must mean the same file.

    flock(2) belongs to an open file, so two holders in one process exclude one another as well.
    """

    def __init__(self, reactor: Any, folder: Path) -> None:
        self._reactor = reactor
        self._folder = folder
        self._queues: dict[str, DeferredLock] = {}

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[None]:
        """Alone; in this process in the order of asking."""
        async with self._queues.setdefault(name, DeferredLock()), self._held(name, fcntl.LOCK_EX):
            yield

    @asynccontextmanager
    async def shared(self, name: str) -> AsyncIterator[None]:
        """Beside others who share it."""
        async with self._held(name, fcntl.LOCK_SH):
            yield

    @asynccontextmanager
    async def at_once(self, name: str) -> AsyncIterator[bool]:
        """Alone, and without waiting: gives whether it is held."""
        file = self._taken(name, fcntl.LOCK_EX)
        try:
            yield file is not None
        finally:
            if file is not None:
                os.close(file)

    @asynccontextmanager
    async def _held(self, name: str, how: int) -> AsyncIterator[None]:
        while (file := self._taken(name, how)) is None:
            await deferLater(self._reactor, _LOOK, lambda: None)
        try:
            yield
        finally:
            os.close(file)

    def _taken(self, name: str, how: int) -> int | None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        return file
