"""What each running task has for ssh: its agent, and the file of servers that its ssh compares with.

That file follows the owner's own: a server that the host's git met while the task came up is known in its
container seconds later. It must not know where sockets lie, nor who listens on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.credentials.known_hosts import KnownHosts, destinations, read
from uaihost.credentials.ssh_agent import AgentFactory, Audit, agent_factory
from uaihost.proofs import Grant, SshKeys

log = Logger()

# In the folder of a task's sockets.
KNOWN_HOSTS = "known_hosts"
# Seconds between two looks at the owner's files.
LOOK = 3.0


@attrs.define
class _Open:
    factory: AgentFactory
    folder: Path


class SshAccess:
    """files: the owner's known_hosts files, as sshd(8) has them. audit: told of each use."""

    def __init__(
        self, clock: Any, blocking: Blocking, keys: SshKeys, files: Sequence[Path], audit: Audit
    ) -> None:
        self._clock = clock
        self._blocking = blocking
        self._keys = keys
        self._files = files
        self._audit = audit
        self._open: dict[str, _Open] = {}
        self._seen: object = None
        self._looking = LoopingCall(lambda: Deferred.fromCoroutine(self._look()))
        self._looking.clock = clock

    async def open(self, grant: Grant, folder: Path) -> AgentFactory:
        """What is to answer on the task's socket; `folder`, which is there, gets the known servers.

        Again for a task that is open: its factory, with the new grant.
        """
        known = await self.hosts()
        await self._blocking.call(write, folder, known, grant)
        held = self._open.get(grant.task_id)
        if held is None:
            factory = agent_factory(self._clock, self._keys, grant, self.hosts, self._audit)
            held = self._open[grant.task_id] = _Open(factory, folder)
        held.factory.grant, held.folder = grant, folder
        if not self._looking.running:
            self._looking.start(LOOK, now=False)
        return held.factory

    def close(self, task_id: str) -> None:
        """End its connections; none is no error."""
        held = self._open.pop(task_id, None)
        if held is not None:
            held.factory.close()
        if not self._open and self._looking.running:
            self._looking.stop()

    def stop(self) -> None:
        for task_id in list(self._open):
            self.close(task_id)

    async def hosts(self) -> KnownHosts:
        """What is known now."""
        return await self._blocking.call(read, self._files)

    async def _look(self) -> None:
        """Write the tasks' files anew when the owner's have changed."""
        try:
            seen = await self._blocking.call(marks, self._files)
            if seen == self._seen:
                return
            known = await self.hosts()
            for held in list(self._open.values()):
                await self._blocking.call(write, held.folder, known, held.factory.grant)
            self._seen = seen
        except OSError as error:
            log.warn("the servers that tasks' ssh knows could not be written: {why}", why=error)


def marks(files: Sequence[Path]) -> Mapping[Path, tuple[int, int, int]]:
    """What changes with each file. Blocking."""
    found = {}
    for path in files:
        try:
            state = path.stat()
        except OSError:
            continue
        found[path] = (state.st_mtime_ns, state.st_size, state.st_ino)
    return found


def write(folder: Path, known: KnownHosts, grant: Grant) -> None:
    """The known servers of a task, whole at every moment. A folder that is gone is passed over. Blocking."""
    if not folder.is_dir():
        return
    beside = folder / f".{KNOWN_HOSTS}"
    beside.write_text(known.text(destinations(grant.repositories)), encoding="ascii")
    beside.chmod(0o644)
    beside.replace(folder / KNOWN_HOSTS)


def owners_files(home: Path, git_home: Path) -> tuple[Path, ...]:
    """Where the owner's ssh and the host's own git keep the servers that they know."""
    return (
        git_home / "known_hosts",
        home / ".ssh" / "known_hosts",
        home / ".ssh" / "known_hosts2",
        Path("/etc/ssh/ssh_known_hosts"),
        Path("/etc/ssh/ssh_known_hosts2"),
    )
