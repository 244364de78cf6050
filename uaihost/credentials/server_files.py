"""The owner's known_hosts files: read when they are needed, and looked at for what has changed.

A server that the host's own git met while a task came up is known in its container seconds later. It must not
know who is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.credentials.known_hosts import Destination, KnownHosts, read
from uaihost.paths import public_forges

log = Logger()

# What changes with a file, by its path.
Marks = Mapping[Path, tuple[int, int, int]]

# Seconds between two looks.
LOOK = 3.0


@attrs.frozen
class Files:
    """As sshd(8) has them; those that are not there count as empty. met: the one that the host's own git
    writes into when it believes a server that it has not met before."""

    said: tuple[Path, ...]
    met: Path


class ServerFiles:
    """What the owner's files say now, and when they change."""

    def __init__(self, clock: Any, blocking: Blocking, files: Files) -> None:
        self._blocking = blocking
        self._files = files
        self._turn = DeferredLock()
        self._seen: Marks | None = None
        # What was read, and when the files looked like that.
        self._kept: tuple[Marks, KnownHosts] | None = None
        self._told: Callable[[], Awaitable[None]] | None = None
        self._looking = LoopingCall(lambda: Deferred.fromCoroutine(self.look()))
        self._looking.clock = clock

    async def read(self) -> KnownHosts:
        """What is known now."""
        return await self._blocking.call(self._current)

    async def having(self, key: bytes, to: Sequence[Destination]) -> tuple[Destination, ...]:
        """Those of the servers that may have this key (RFC 4253, section 6.6)."""

        def look() -> tuple[Destination, ...]:
            known = self._current()
            return tuple(one for one in to if key in known.keys(one))

        # Names in the files may be hashed, each with a salt: ten thousand lines take a while.
        return await self._blocking.call(look)

    def start(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Call `changed` when they have; until `stop`."""
        self._told = changed
        self._looking.start(LOOK, now=False)

    def stop(self) -> None:
        if self._looking.running:
            self._looking.stop()

    def _current(self) -> KnownHosts:
        """Blocking."""
        seen = marks(self._files)
        if self._kept is None or self._kept[0] != seen:
            self._kept = seen, read(self._files.said, self._files.met)
        return self._kept[1]

    async def look(self) -> None:
        """Have they changed since the last look? Who wants to know has been told when this returns."""
        await self._turn.acquire()
        try:
            seen = await self._blocking.call(marks, self._files)
            if seen != self._seen and self._told is not None:
                await self._told()
                self._seen = seen
        except Exception:
            # The next look tries again.
            log.failure("what ssh in tasks knows of servers was not brought up to date")
        finally:
            self._turn.release()


def marks(files: Files) -> Marks:
    """Blocking."""
    found = {}
    for path in (*files.said, files.met):
        try:
            state = path.stat()
        except OSError:
            continue
        found[path] = (state.st_mtime_ns, state.st_size, state.st_ino)
    return found


def owners_files(home: Path, git_home: Path) -> Files:
    """The public forges' keys, and where the owner's ssh and the host's git keep the servers they know."""
    folder, machine = home / ".ssh", Path("/etc/ssh")
    said = (folder / "known_hosts", folder / "known_hosts2", machine / "ssh_known_hosts")
    return Files((public_forges(), *said, machine / "ssh_known_hosts2"), git_home / "known_hosts")
