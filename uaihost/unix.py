"""Unix sockets between this host and containers. It knows sockets and not what is said on them.

The only way to one that a container may have replaced: what a container can write may be a link to any socket
of this machine, the engine's for example. So a socket is opened as itself, without following anything, and
then connected to by its descriptor: whoever exchanges the name in between changes nothing.

And the way to listen on one whose name goes the moment it is closed: Twisted removes the name one turn of the
reactor after it was told to stop. By then it may be a successor's, or its folder is gone, and the failed
removal leaves the descriptor open for good.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectionDone, getConnectError
from twisted.internet.interfaces import (
    IConnector,
    IListeningPort,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from uaihost.errors import ErrorCode, HostError

# Seconds to be let in: a Unix socket answers at once or not at all.
TIMEOUT = 10


def hostile_socket_endpoint(
    reactor: Any, path: Path | str, trusted: Path | str | None = None
) -> IStreamClientEndpoint:
    """The socket at `path`, however long that is (a socket's own name holds 107 bytes).

    Connecting to it fails with ConnectError when nothing is there or nobody listens, and with HostError
    `unavailable` when what is there is no socket, or no folder on the way to it.

    Args:
        trusted: the folder, at or above the socket's, whose own path nobody in a container can change; the
            socket's own folder when left out.
    """
    path = Path(path)
    return _Endpoint(reactor, path, path.parent if trusted is None else Path(trusted))


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, reactor: Any, path: Path, trusted: Path) -> None:
        self._reactor = _Plain(reactor)
        self._path = path
        self._trusted = trusted

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        try:
            descriptor = open_socket(self._path, self._trusted)
        except HostError as error:
            return fail(error)
        except OSError as error:
            return fail(getConnectError((error.errno, f"{self._path}: {error.strerror}")))
        name = f"/proc/self/fd/{descriptor}"
        connecting: Deferred[Any] = UNIXClientEndpoint(self._reactor, name, timeout=TIMEOUT).connect(factory)

        def close(result: Any) -> Any:
            os.close(descriptor)
            return result

        connecting.addBoth(close)
        return connecting


def open_socket(path: Path, trusted: Path) -> int:
    """A descriptor (O_PATH) of the socket at `path`. No link below `trusted` is followed.

    Raises:
        OSError: there is nothing, or it cannot be reached.
        HostError: `unavailable`; it is no socket, or a part of its path no folder.
    """
    *folders, name = path.relative_to(trusted).parts
    descriptor = os.open(trusted, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            below = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise _replaced(path, f"{part} on the way to it is not a folder")
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    if stat.S_ISSOCK(os.fstat(found).st_mode):
        return found
    os.close(found)
    raise _replaced(path, "it is not a socket")


def _replaced(path: Path, why: str) -> HostError:
    return HostError(
        ErrorCode.UNAVAILABLE,
        f"{path} is not used, because {why}: something in the container replaced it; take the task down and "
        "up again",
    )


class _Client(unix.Client):
    def doConnect(self) -> None:
        super().doConnect()
        if not self.connected and hasattr(self, "connector"):
            # Its queue is full, and the kernel does not tell when there is room (connect(2), EAGAIN).
            self.failIfNotConnected(getConnectError((errno.EAGAIN, "too many connections wait there")))

    def doRead(self) -> Any:
        # unix.Client's takes descriptors that are sent with the bytes, and logs each. Without room for them
        # the kernel drops them, and a read costs less.
        return tcp.Connection.doRead(self)


class _Connector(unix.Connector):
    def _makeTransport(self) -> Any:
        return _Client(self.address, self, self.reactor, self.checkPID)


class _Plain:
    """A reactor, as far as UNIXClientEndpoint uses it, that takes bytes and nothing else."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def connectUNIX(
        self, address: str, factory: Any, timeout: float = TIMEOUT, checkPID: bool = False
    ) -> IConnector:
        connector = _Connector(address, factory, timeout, self._reactor, checkPID)
        connector.connect()
        return connector


_DONE = Failure(ConnectionDone())

# Connections that wait to be accepted: a package manager opens dozens at once.
_BACKLOG = 128

# path, factory and mode of the socket's file; raises OSError or CannotListenError.
Listen = Callable[[Path, IProtocolFactory, int], IListeningPort]


class NamedPort(unix.Port):
    """The listening side."""

    def stopListening(self, connDone: Any = _DONE) -> Any:
        # Whatever is at its place by now, or nothing: the descriptor has to be closed all the same.
        with contextlib.suppress(OSError):
            Path(os.fsdecode(self._bindPath)).unlink()
        return self.loseConnection(connDone)

    def connectionLost(self, reason: Failure) -> None:
        # Past unix.Port's, which would remove the name.
        tcp.Port.connectionLost(self, reason)


def listener(reactor: Any) -> Listen:
    """How sockets are made on `reactor`; a name that is there already is replaced."""

    def start(path: Path, factory: IProtocolFactory, mode: int) -> IListeningPort:
        path.unlink(missing_ok=True)
        port = NamedPort(os.fsencode(path), factory, _BACKLOG, mode, reactor)
        port.startListening()
        return port

    return start
