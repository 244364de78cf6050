"""The one port: each connection is given to the app, to the hosts' WebSocket or to the tunnels.

The first request head decides, by its Host header; what was read is replayed. Requests that follow on a
kept connection are judged again by whoever got it. A head for a foreign name is refused here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from uaihost.bridge import pages
from uaihost.bridge.names import App, Foreign, Names
from uaihost.bridge.proxy import MAX_HEAD

# Seconds for the first head. Browsers open connections in reserve; nginx waits 60 for a head.
HEAD_TIMEOUT = 60.0

HOST_PATH = b"/host"

Build = Callable[[IAddress | None], IProtocol | None]


class FrontConnection(Protocol):
    """One accepted connection, until and after its kind is known."""

    transport: Any

    def __init__(self, names: Names, app: Build, host: Build, tunnel: Build, clock: IReactorTime) -> None:
        self._names = names
        self._app = app
        self._host = host
        self._tunnel = tunnel
        self._clock = clock
        self._head = bytearray()
        self._inner: IProtocol | None = None
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self._timer = self._clock.callLater(HEAD_TIMEOUT, self.transport.abortConnection)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        if self._timer is None:
            return
        self._head += data
        # A line that ends in a bare LF is left to the parser behind, which judges it.
        if b"\r\n\r\n" in self._head or b"\n\n" in self._head:
            self._decide()
        elif len(self._head) > MAX_HEAD:
            self._refuse(431, "The request's head is too large.", "Clear this site's cookies and try again.")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_timer()
        if self._inner is not None:
            self._inner.connectionLost(reason)

    def _decide(self) -> None:
        self._stop_timer()
        target, host = first_head(bytes(self._head))
        place = self._names.find(host)
        if isinstance(place, Foreign):
            self._refuse(
                421,
                "This address is not served here.",
                f"Open http://localhost:{self._names.port}/ or a link that the app shows.",
            )
            return
        if not isinstance(place, App):
            build = self._tunnel
        else:
            build = self._host if target.split(b"?")[0] == HOST_PATH else self._app
        inner = build(self.transport.getPeer())
        if inner is None:
            self.transport.abortConnection()
            return
        self._inner = inner
        inner.makeConnection(self.transport)
        head, self._head = bytes(self._head), bytearray()
        inner.dataReceived(head)

    def _refuse(self, status: int, message: str, advice: str) -> None:
        self._stop_timer()
        html = b"text/html" in bytes(self._head).lower()
        self.transport.write(pages.error(status, message, advice, html=html))
        self.transport.loseConnection()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


class Front(Factory):
    """Accepts connections on the bridge's port.

    app, host, tunnel: each makes the protocol that such a connection is given to.
    names: set once the port is known.
    """

    noisy = False
    names: Names

    def __init__(self, app: Build, host: Build, tunnel: Build, clock: IReactorTime) -> None:
        self._app = app
        self._host = host
        self._tunnel = tunnel
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> FrontConnection:
        made = FrontConnection(self.names, self._app, self._host, self._tunnel, self._clock)
        made.factory = self
        return made


def first_head(data: bytes) -> tuple[bytes, str]:
    """The request target and the value of the one Host header; empty when missing or given twice."""
    lines = data.replace(b"\r\n", b"\n").split(b"\n\n", 1)[0].split(b"\n")
    words = lines[0].split(b" ")
    hosts = [line[5:].strip() for line in lines[1:] if line[:5].lower() == b"host:"]
    host = hosts[0].decode("latin-1") if len(hosts) == 1 else ""
    return (words[1] if len(words) > 1 else b""), host
