"""Proofs for tasks and for the host's own git: proofs.Broker.

A task has two Unix sockets in its control folder, which its container sees read-only: `git.sock` (counter) and
`ssh.sock` (ssh_agent), and the servers that ssh may trust in `known_hosts`. For one run of the host's own git
the same is made in a folder of its own, for the one repository. Whoever can connect to a socket may use it:
into a container leads only its own mount, and the folders around are open to the daemon's user alone.
"""

from __future__ import annotations

import contextlib
import itertools
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.credentials.api_forward import ApiForward
from uaihost.credentials.counter import Counter, TaskDesk
from uaihost.credentials.known_hosts import KnownHosts, destinations
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

    forward: the way to GitHub's API. hosts: reads which servers ssh may trust. audit: told of each use.
    settings: further ones for the host's own git, like whose certificates it trusts. helper: git's credential
    helper, a program of the shim.
    """

    def __init__(
        self,
        reactor: Any,
        blocking: Blocking,
        folders: Folders,
        tokens: Tokens,
        keys: SshKeys,
        forward: ApiForward,
        hosts: Callable[[], Awaitable[KnownHosts]],
        audit: Audit,
        *,
        helper: Path,
        settings: tuple[str, ...] = (),
        listen: Listen | None = None,
    ) -> None:
        self._reactor = reactor
        self._blocking = blocking
        self._folders = folders
        self._tokens = tokens
        self._keys = keys
        self._forward = forward
        self._hosts = hosts
        self._audit = audit
        self._helper = helper
        self._settings = settings
        self._listen = listen or listener(reactor)
        self._open: dict[str, _Served] = {}
        self._numbers = itertools.count(1)

    async def open(self, grant: Grant) -> None:
        folder = self._folders.control(grant.task_id) / FOLDER
        served = self._open.get(grant.task_id)
        if served is not None:
            served.counter.desk.grant = served.agent.grant = grant
            await self._known_hosts(folder, grant)
            if (folder / GIT_SOCKET).is_socket() and (folder / SSH_SOCKET).is_socket():
                return
            self.close(grant.task_id)
        await self._blocking.call(_make, folder, 0o755)
        await self._known_hosts(folder, grant)
        self._open[grant.task_id] = self._serve(folder, grant, self._forward, _MODE)

    def close(self, task_id: str) -> None:
        served = self._open.pop(task_id, None)
        if served is not None:
            served.close()

    def stop(self) -> None:
        """Close all."""
        for task_id in list(self._open):
            self.close(task_id)

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
            yield Reach()
            return
        folder = self._folders.run_of_git / str(next(self._numbers))
        await self._blocking.call(_make, folder, 0o700)
        served = None
        try:
            grant = Grant(user_id, "", (url,))
            served = self._serve(folder, grant, None, _OWN_MODE)
            if over_https:
                command = f"{shlex.quote(sys.executable)} -I {shlex.quote(str(self._helper))}"
                yield Reach(
                    (f"credential.helper=!{command}", "credential.useHttpPath=true", *self._settings),
                    {SOCKET_VARIABLE: str(folder / GIT_SOCKET)},
                )
            else:
                yield Reach((), {"SSH_AUTH_SOCK": str(folder / SSH_SOCKET)})
        finally:
            if served is not None:
                served.close()
            await self._blocking.call(shutil.rmtree, folder, ignore_errors=True)

    def _serve(self, folder: Path, grant: Grant, forward: ApiForward | None, mode: int) -> _Served:
        def note(what: str, host: str, path: str, outcome: str) -> None:
            current = desk.grant
            self._audit(
                user=current.user_id, task=current.task_id, what=what, host=host, path=path, outcome=outcome
            )

        def host() -> str | None:
            return self._tokens.host(desk.grant.user_id)

        desk = TaskDesk(self._reactor, grant, host, note)
        counter = Counter(self._reactor, desk, self._tokens, forward)
        agent = agent_factory(self._reactor, self._keys, grant, self._hosts, self._audit)
        ports: list[IListeningPort] = []
        try:
            for name, factory in ((GIT_SOCKET, counter), (SSH_SOCKET, agent)):
                path = folder / name
                if len(str(path).encode()) > SOCKET_LIMIT:
                    raise HostError(
                        ErrorCode.INVALID_ARGS,
                        f"{path} is too long for a Unix socket's name; set UAI_DATA_DIR to a shorter path",
                    )
                ports.append(self._listen(path, factory, mode))
        except (OSError, CannotListenError) as error:
            for port in ports:
                port.stopListening()
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the sockets for git and ssh cannot be opened: {error}; look at free disk space and at the "
                f"owner of {folder}",
            ) from None
        return _Served(counter, agent, tuple(ports))

    async def _known_hosts(self, folder: Path, grant: Grant) -> None:
        known = await self._hosts()
        text = known.text(destinations(grant.repositories))
        await self._blocking.call(_replace, folder / KNOWN_HOSTS, text)


def clear_leftovers(folders: Folders) -> None:
    """What runs of git left that a killed daemon was waiting for. Blocking."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folders.run_of_git)


def _make(folder: Path, mode: int) -> None:
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    folder.chmod(mode)


def _replace(path: Path, text: str) -> None:
    """In one step: ssh in the container may be reading it."""
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="ascii")
    new.chmod(0o644)
    new.replace(path)
