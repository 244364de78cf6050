"""A listening Unix socket whose name goes the moment it is closed.

Twisted removes the name one turn of the reactor after it was told to stop. By then it may be a successor's,
or its folder is gone, and the failed removal leaves the descriptor open for good.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.failure import Failure

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


def listen(reactor: Any) -> Listen:
    """How sockets are made on `reactor`; a name that is there already is replaced."""

    def start(path: Path, factory: IProtocolFactory, mode: int) -> IListeningPort:
        path.unlink(missing_ok=True)
        port = NamedPort(os.fsencode(path), factory, _BACKLOG, mode, reactor)
        port.startListening()
        return port

    return start
