"""The one port: each connection is given to the app, to the hosts' WebSocket or to the tunnels.

The first request head decides, by its Host header; what was read is replayed. Requests that follow on a
kept connection are judged again by whoever got it. A head for a foreign name is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from uaihost.bridge import pages
from uaihost.bridge.names import App, Foreign, Names
from uaihost.bridge.proxy import LINGER, MAX_HEAD

# Seconds for the first head. Browsers open connections in reserve; nginx waits 60 for a head.
HEAD_TIMEOUT = 60.0

HOST_PATH = b"/host"

_END_OF_HEAD = re.compile(rb"\n\r?\n")

Build = Callable[[IAddress | None], IProtocol | None]


@attrs.frozen
class Kinds:
    """Who gets a connection: each makes the protocol that goes on with it."""

    names: Names
    app: Build
    host: Build
    tunnel: Build


class FrontConnection(Protocol):
    """One accepted connection, until and after its kind is known."""

    transport: Any

    def __init__(self, front: Front, kinds: Kinds) -> None:
        self._front = front
        self._kinds = kinds
        self._head = bytearray()
        self._inner: IProtocol | None = None
        self._timer: IDelayedCall | None = None
        self.is_host = False
        # The connection is refused; whatever still comes is thrown away.
        self._deaf = False

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self._timer = self._front.clock.callLater(HEAD_TIMEOUT, self.transport.abortConnection)
        self._front.connections.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self._deaf:
            return
        self._head += data
        # A line that ends in a bare LF is left to the parser behind, which judges it.
        if _END_OF_HEAD.search(self._head):
            self._decide()
        elif len(self._head) > MAX_HEAD:
            self._refuse(431, "The request's head is too large.", "Clear this site's cookies and try again.")

    def readConnectionLost(self) -> None:
        IHalfCloseableProtocol(self._inner).readConnectionLost()

    def writeConnectionLost(self) -> None:
        IHalfCloseableProtocol(self._inner).writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_timer()
        if self._inner is not None:
            self._inner.connectionLost(reason)
        self._front.ended(self)

    def _decide(self) -> None:
        self._stop_timer()
        target, host = first_head(bytes(self._head))
        place = self._kinds.names.find(host)
        if isinstance(place, Foreign):
            self._refuse(
                421,
                "This address is not served here.",
                f"Open http://localhost:{self._kinds.names.port}/ or a link that the app shows.",
            )
            return
        self.is_host = isinstance(place, App) and target.split(b"?")[0] == HOST_PATH
        if not isinstance(place, App):
            build = self._kinds.tunnel
        else:
            build = self._kinds.host if self.is_host else self._kinds.app
        inner = build(self.transport.getPeer())
        if inner is None:
            self.transport.abortConnection()
            return
        self._inner = inner
        if IHalfCloseableProtocol.providedBy(inner):
            # Twisted asks when a half is closed; to the others that is a lost connection.
            alsoProvides(self, IHalfCloseableProtocol)
        inner.makeConnection(self.transport)
        head, self._head = bytes(self._head), bytearray()
        inner.dataReceived(head)

    def _refuse(self, status: int, message: str, advice: str) -> None:
        self._stop_timer()
        html = b"text/html" in bytes(self._head).lower()
        self._deaf = True
        self.transport.write(pages.error(status, message, advice, html=html))
        # Closing while more comes would reset the connection, and the answer with it.
        self.transport.loseWriteConnection()
        self._timer = self._front.clock.callLater(LINGER, self.transport.abortConnection)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


class Front(Factory):
    """Accepts connections on the bridge's port. kinds: set before the first one is accepted."""

    noisy = False
    kinds: Kinds

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.connections: set[FrontConnection] = set()
        self._empty: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> FrontConnection:
        made = FrontConnection(self, self.kinds)
        made.factory = self
        return made

    def ended(self, connection: FrontConnection) -> None:
        """The connection is gone."""
        self.connections.discard(connection)
        if self._empty is not None and not self.connections:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def drop(self) -> Deferred[None]:
        """End every connection but the hosts', which say goodbye; fires when all are gone."""
        for connection in list(self.connections):
            if not connection.is_host:
                connection.transport.abortConnection()
        done: Deferred[None] = Deferred()
        if self.connections:
            self._empty = done
        else:
            done.callback(None)
        return done


def first_head(data: bytes) -> tuple[bytes, str]:
    """The request target and the value of the one Host header; empty when missing or given twice."""
    lines = data.replace(b"\r\n", b"\n").split(b"\n\n", 1)[0].split(b"\n")
    words = lines[0].split(b" ")
    hosts = [line[5:].strip() for line in lines[1:] if line[:5].lower() == b"host:"]
    host = hosts[0].decode("latin-1") if len(hosts) == 1 else ""
    return (words[1] if len(words) > 1 else b""), host
