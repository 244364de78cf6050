"""Proofs for tasks and for the host's own git: proofs.Broker.

A task has two Unix sockets in its control folder, which its container sees read-only: `git.sock` (counter)
and `ssh.sock` (ssh_agent), and beside them the servers that its ssh may trust. For one run of the host's own
git one of the two is made in a folder of its own, for the one repository. Whoever can connect to a socket may
use it: into a container leads only its own mount, and the folders around are open to the daemon's user alone.
"""

from __future__ import annotations

import contextlib
import itertools
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.credentials.api_forward import ApiForward
from uaihost.credentials.counter import Counter, TaskDesk
from uaihost.credentials.known_hosts import KnownHosts, destinations
from uaihost.credentials.server_files import ServerFiles
from uaihost.credentials.ssh_agent import AgentFactory, Audit, agent_factory
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import SOCKET_LIMIT, Folders
from uaihost.proofs import Grant, Reach, SshKeys, Tokens
from uaihost.unix import Listen, listener

log = Logger()

# Where a container finds them, below its control folder.
FOLDER = "broker"
GIT_SOCKET, SSH_SOCKET, KNOWN_HOSTS = "git.sock", "ssh.sock", "known_hosts"
# Which socket git's helper asks; in a container it knows its place.
SOCKET_VARIABLE = "UAI_GIT_SOCKET"

# Where the image has gh's settings, which lead it to the socket.
GH_CONFIG = "/etc/gh"
# gh asks nothing without a token. What it sends as one is dropped.
NO_TOKEN = "of-the-host"
# A task that brings a token of its own has gh use that.
_OWN_TOKEN = frozenset({"GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN"})

# The daemon's user is not always the container's, and connecting takes the right to write (unix(7)).
_MODE = 0o666
_OWN_MODE = 0o600


@attrs.frozen
class _Served:
    counter: Counter
    agent: AgentFactory
    ports: tuple[IListeningPort, ...]

    def close(self) -> None:
        for port in self.ports:
            port.stopListening()
        self.counter.close()
        self.agent.close()


class TaskBroker:
    """proofs.Broker.

    forward: the way to GitHub's API. servers: which ones ssh may trust. audit: told of each use. helper:
    git's credential helper, a program of the shim. settings: further ones for the host's own git, like whose
    certificates it trusts. github: the host of the GitHub that tasks' gh is to ask.
    """

    def __init__(
        self,
        reactor: Any,
        blocking: Blocking,
        folders: Folders,
        tokens: Tokens,
        keys: SshKeys,
        forward: ApiForward,
        servers: ServerFiles,
        audit: Audit,
        *,
        helper: Path,
        settings: tuple[str, ...] = (),
        github: str = "github.com",
        listen: Listen | None = None,
    ) -> None:
        self._reactor = reactor
        self._blocking = blocking
        self._folders = folders
        self._tokens = tokens
        self._keys = keys
        self._forward = forward
        self._servers = servers
        self._audit = audit
        self._helper = helper
        self._settings = settings
        self._github = github
        self._listen = listen or listener(reactor)
        self._open: dict[str, _Served] = {}
        self._numbers = itertools.count(1)
        # Two who write the same file take turns.
        self._putting = DeferredLock()

    def environment(self, own: Collection[str]) -> dict[str, str]:
        if not _OWN_TOKEN.isdisjoint(own):
            return {}
        variables = {"GH_CONFIG_DIR": GH_CONFIG, "GH_TOKEN": NO_TOKEN}
        if self._github != "github.com":
            variables |= {"GH_HOST": self._github.partition(":")[0], "GH_ENTERPRISE_TOKEN": NO_TOKEN}
        return variables

    def start(self) -> None:
        """Tell tasks of the owner's known servers from now on, until `stop`."""
        self._servers.start(self._tell_servers)

    def user_of(self, task_id: str) -> str | None:
        """Whose credentials an open task may use."""
        served = self._open.get(task_id)
        return None if served is None else served.agent.grant.user_id

    def tasks_of(self, user_id: str) -> list[str]:
        """The tasks of this user that are open."""
        return [task for task, served in self._open.items() if served.agent.grant.user_id == user_id]

    def stop(self) -> None:
        """Close all."""
        self._servers.stop()
        for task_id in list(self._open):
            self.close(task_id)

    async def open(self, grant: Grant) -> None:
        folder = self._folder(grant.task_id)
        await self._blocking.call(_make, folder, 0o755)
        # The container comes in by its mount; nobody else of this machine may come by the folders above.
        await self._blocking.call(self._folders.task(grant.task_id).chmod, 0o700)
        await self._put(folder, grant, await self._servers.read())
        served = self._open.get(grant.task_id)
        if served is not None:
            served.counter.desk.grant = served.agent.grant = grant
            if all((folder / name).is_socket() for name in (GIT_SOCKET, SSH_SOCKET)):
                return
            self.close(grant.task_id)
        counter, agent = self._counter(grant, self._forward), self._agent(grant)
        ports = self._listening(folder, {GIT_SOCKET: counter, SSH_SOCKET: agent}, _MODE)
        self._open[grant.task_id] = _Served(counter, agent, ports)

    def close(self, task_id: str) -> None:
        served = self._open.pop(task_id, None)
        if served is not None:
            served.close()

    @asynccontextmanager
    async def reach(self, user_id: str, url: str) -> AsyncIterator[Reach]:
        parts = urlsplit(url) if "://" in url else None
        over_https = parts is not None and parts.scheme == "https"
        if over_https:
            useful = self._tokens.host(user_id) is not None
        elif parts is None or parts.scheme == "ssh":
            useful = await self._keys.public(user_id) is not None
        else:
            useful = False
        if not useful:
            yield Reach(self._settings if over_https else ())
            return
        folder = self._folders.run_of_git / str(next(self._numbers))
        await self._blocking.call(_make, folder, 0o700)
        grant = Grant(user_id, "", (url,))
        closing = contextlib.ExitStack()
        try:
            if over_https:
                counter = self._counter(grant, None)
                closing.callback(counter.close)
                (port,) = self._listening(folder, {GIT_SOCKET: counter}, _OWN_MODE)
                closing.callback(port.stopListening)
                command = f"{shlex.quote(sys.executable)} -I {shlex.quote(str(self._helper))}"
                yield Reach(
                    (f"credential.helper=!{command}", "credential.useHttpPath=true", *self._settings),
                    {SOCKET_VARIABLE: str(folder / GIT_SOCKET)},
                )
            else:
                agent = self._agent(grant)
                closing.callback(agent.close)
                (port,) = self._listening(folder, {SSH_SOCKET: agent}, _OWN_MODE)
                closing.callback(port.stopListening)
                yield Reach((), {"SSH_AUTH_SOCK": str(folder / SSH_SOCKET)})
                # A server that was met for the first time: the task's own ssh may be next.
                await self._servers.look()
        finally:
            closing.close()
            await self._blocking.call(shutil.rmtree, folder, ignore_errors=True)

    def _counter(self, grant: Grant, forward: ApiForward | None) -> Counter:
        def note(what: str, host: str, path: str, outcome: str) -> None:
            of = desk.grant
            self._audit(user=of.user_id, task=of.task_id, what=what, host=host, path=path, outcome=outcome)

        desk = TaskDesk(self._reactor, grant, lambda: self._tokens.host(desk.grant.user_id), note)
        return Counter(self._reactor, desk, self._tokens, forward)

    def _agent(self, grant: Grant) -> AgentFactory:
        return agent_factory(self._reactor, self._keys, grant, self._servers.having, self._audit)

    def _folder(self, task_id: str) -> Path:
        return self._folders.control(task_id) / FOLDER

    async def _tell_servers(self) -> None:
        known = await self._servers.read()
        for task_id, served in list(self._open.items()):
            grant = served.agent.grant
            try:
                await self._put(self._folder(task_id), grant, known)
            except FileNotFoundError:
                # It is being taken down.
                continue

    async def _put(self, folder: Path, grant: Grant, known: KnownHosts) -> None:
        await self._putting.run(
            lambda: Deferred.fromCoroutine(self._blocking.call(_put_servers, folder, grant, known))
        )

    def _listening(
        self, folder: Path, factories: Mapping[str, IProtocolFactory], mode: int
    ) -> tuple[IListeningPort, ...]:
        ports: list[IListeningPort] = []
        try:
            for name, factory in factories.items():
                path = folder / name
                if len(str(path).encode()) > SOCKET_LIMIT:
                    raise HostError(
                        ErrorCode.INVALID_ARGS,
                        f"{path} is too long for a Unix socket's name; set UAI_DATA_DIR to a shorter path",
                    )
                ports.append(self._listen(path, factory, mode))
        except (OSError, CannotListenError, HostError) as error:
            for port in ports:
                port.stopListening()
            if isinstance(error, HostError):
                raise
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the sockets for git and ssh cannot be opened: {error}; look at free disk space and at the "
                f"owner of {folder}",
            ) from None
        return tuple(ports)


def _make(folder: Path, mode: int) -> None:
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    folder.chmod(mode)


def _put_servers(folder: Path, grant: Grant, known: KnownHosts) -> None:
    """The file is whole at every moment: ssh in the container may be reading it."""
    new = folder / f".{KNOWN_HOSTS}"
    new.write_text(known.text(destinations(grant.repositories)), encoding="ascii")
    new.chmod(0o644)
    new.replace(folder / KNOWN_HOSTS)
