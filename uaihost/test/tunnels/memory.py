"""Tunnels in memory: a table on a reactor without sockets, servers played by the test, a fake link."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from uaihost.interfaces import Address
from uaihost.test.fakes_tunnels import FakeLink
from uaihost.tunnels.table import TunnelTable
from uaihost.tunnels.targets import PortTable
from uaihost.wire.frames import Header, RequestLine, TunnelClose, TunnelOpen, TunnelRequestEnd


class Wire(StringTransport):
    """A connection, seen from the server that the test plays.

    aborted: the host destroyed it; write_closed: the host's end of file has come; nodelay: TCP_NODELAY.
    """

    bufferSize = 65536
    producer: Any

    def __init__(self) -> None:
        super().__init__()
        self.protocol: Any = None
        self.aborted = False
        self.write_closed = False
        self.nodelay = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.nodelay = enabled

    def loseWriteConnection(self) -> None:
        assert self.producer is None, "an end of file would wait for the producer"
        self.write_closed = True

    def loseConnection(self) -> None:
        assert self.producer is None, "the close would wait for the producer"
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.aborted = self.disconnected = self.disconnecting = True

    # What the server does.

    def send(self, data: bytes) -> None:
        """Bytes for the host."""
        assert self.producerState == "producing", "the host does not read"
        self.protocol.dataReceived(data)

    def close(self, error: Exception | None = None) -> None:
        """The connection ends; cleanly unless there is an error."""
        self.connected = False
        if self.producer is not None:
            self.producer.stopProducing()
            self.producer = None
        self.protocol.connectionLost(Failure(error or ConnectionDone()))

    def full(self) -> None:
        """The host's write buffer is full."""
        self.producer.pauseProducing()

    def drained(self) -> None:
        """The host's write buffer is empty again."""
        self.producer.resumeProducing()

    def take(self) -> bytes:
        """What the host has written since the last call."""
        taken = bytes(self.value())
        self.clear()
        return taken


class MemoryTestCase(SynchronousTestCase):
    """table, link, reactor; the preview `web` and the editor of task `t` exist.

    broken: why the table broke the connection off.
    """

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.targets = PortTable()
        self.targets.set_task("t", Address("127.0.0.1", 8100), {"web": Address("127.0.0.1", 3000)})
        self.table = TunnelTable(self.reactor, self.targets)
        self.link = FakeLink()
        self.broken: list[str] = []
        self.table.link_up(self.link, self.link, self.broken.append)
        self.addCleanup(self._check_nothing_left)

    def _check_nothing_left(self) -> None:
        self.table.stop()
        self.assertEqual(self.table.open_tunnels, 0)
        left = [call for call in self.reactor.getDelayedCalls() if "_destroy" not in str(call)]
        self.assertEqual(left, [])

    def open(
        self,
        tunnel_id: str = "a",
        method: str = "GET",
        *headers: Header,
        url: str = "/",
        upgrade: bool = False,
    ) -> None:
        line = RequestLine(method, url, [("Host", "example"), *headers])
        self.table.open(TunnelOpen(tunnel_id, "preview", "t", line, upgrade, "web"))

    def end(self, tunnel_id: str = "a") -> None:
        self.table.request_end(TunnelRequestEnd(tunnel_id))

    def close(self, tunnel_id: str = "a", reason: str | None = None) -> None:
        self.table.close(TunnelClose(tunnel_id, reason))

    @property
    def connects(self) -> int:
        """How many connections the host has asked for."""
        return len(self.reactor.tcpClients)

    def connect(self, number: int = -1) -> Wire:
        """Let the host's connection number `number` be made."""
        _, _, factory, _, _ = self.reactor.tcpClients[number]
        wire = Wire()
        wire.protocol = factory.buildProtocol(None)
        wire.protocol.makeConnection(wire)
        # What an endpoint puts around a protocol passes everything on.
        return wire

    def refuse(self, error: Exception) -> None:
        """Let the host's latest connection fail."""
        _, _, factory, _, _ = self.reactor.tcpClients[-1]
        factory.clientConnectionFailed(self.reactor.connectors[-1], Failure(error))

    def last(self) -> Any:
        """The latest frame that left."""
        return self.link.frames()[-1]
