"""Sockets and a resolver in memory, for tests of the proxy."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHostnameResolver, IResolutionReceiver
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer


class Wire(StringTransport):
    """A transport that can be half closed. ended: our end of file has left; paused: nothing is read."""

    def __init__(self, host: str = "192.0.2.10", peer: str = "192.0.2.20") -> None:
        super().__init__(IPv4Address("TCP", host, 5000), IPv4Address("TCP", peer, 443))
        self.protocol: Any = None
        self.ended = False
        self.closed = False
        self.aborted = False

    def loseWriteConnection(self) -> None:
        self.ended = True

    def loseConnection(self) -> None:
        # As a socket with nothing to send: gone at once.
        super().loseConnection()
        self._lost(ConnectionDone())

    def abortConnection(self) -> None:
        self.aborted = True
        self._lost(ConnectionAborted())

    def setTcpNoDelay(self, enabled: bool) -> None:
        """A setting."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """A setting."""

    @property
    def paused(self) -> bool:
        return self.producerState == "paused"

    def taken(self) -> bytes:
        """What was written since the last look."""
        data = self.value()
        self.clear()
        return bytes(data)

    def _lost(self, why: Exception) -> None:
        if not self.closed:
            self.closed = True
            self.protocol.connectionLost(Failure(why))


@implementer(IHostnameResolver)
class Names:
    """A resolver that knows a few names. slow: names that are not answered until `answer`."""

    def __init__(self, **known: list[str]) -> None:
        self.known = {name.replace("_", "."): addresses for name, addresses in known.items()}
        self.asked: list[str] = []
        self.slow: dict[str, IResolutionReceiver] = {}
        self.wait = False

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        self.asked.append(hostName)
        if self.wait:
            self.slow[hostName] = resolutionReceiver
        else:
            self.answer(resolutionReceiver, hostName)
        return None

    def answer(self, receiver: IResolutionReceiver, name: str) -> None:
        for address in self.known.get(name, []):
            kind = IPv6Address if ":" in address else IPv4Address
            receiver.addressResolved(kind("TCP", address, 0))
        receiver.resolutionComplete()


def dialled(reactor: MemoryReactorClock) -> list[tuple[str, int]]:
    """Where the reactor was told to connect."""
    return [(client[0], client[1]) for client in reactor.tcpClients]


def accept(reactor: MemoryReactorClock, number: int = -1, host: str = "192.0.2.10") -> Wire:
    """Let an outgoing connection succeed. host: the address it has here."""
    peer, _, factory = reactor.tcpClients[number][:3]
    protocol: Any = factory.buildProtocol(None)
    wire = Wire(host, peer)
    wire.protocol = protocol
    protocol.makeConnection(wire)
    return wire


def refuse(reactor: MemoryReactorClock, why: Exception, number: int = -1) -> None:
    """Let an outgoing connection fail."""
    reactor.tcpClients[number][2].clientConnectionFailed(reactor.connectors[number], Failure(why))
