"""A reactor for real Unix sockets without real time: its clock is the test's, and so are its turns.

A Unix socket has what was sent to it at once, so that a turn of the reactor has nothing to wait for.
"""

from __future__ import annotations

import select
import socket
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase


class SocketReactor(MemoryReactorClock):
    def turn(self) -> None:
        """Everything that can be read or written now, until there is nothing more."""
        self.advance(0)
        while self._once():
            self.advance(0)

    def _once(self) -> bool:
        readers, writers = self.getReaders(), self.getWriters()
        able_in, able_out, _ = select.select(readers, writers, [], 0)
        for one in able_in:
            if one in self.getReaders():
                self._end(one, one.doRead(), True)
        for one in able_out:
            if one in self.getWriters():
                self._end(one, one.doWrite(), False)
        return bool(able_in or able_out)

    def _end(self, one: Any, why: Exception | None, reading: bool) -> None:
        """As the reactors do: an end of file may be the end of one half only."""
        if why is None:
            return
        self.removeReader(one)
        if reading and isinstance(why, ConnectionDone):
            one.readConnectionLost(Failure(why))
        else:
            self.removeWriter(one)
            one.connectionLost(Failure(why))


def listening(case: SynchronousTestCase, path: Path, backlog: int = 16) -> socket.socket:
    """A socket that listens at `path`; made by its bare name, so that the path may be long."""
    server = socket.socket(socket.AF_UNIX)
    case.addCleanup(server.close)
    server.bind(str(path))
    server.listen(backlog)
    server.setblocking(False)
    return server
