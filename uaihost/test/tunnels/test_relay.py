"""The way through a task's relay, which the test plays on a real socket; the clock is the test's."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from uaihost.interfaces import Address
from uaihost.test.fakes_tunnels import FakeLink
from uaihost.test.sockets import SocketReactor, listening
from uaihost.test.support import given, short_folder, strategies
from uaihost.test.tunnels.memory import Wire
from uaihost.tunnels import relay
from uaihost.tunnels.pool import IDLE_SECONDS
from uaihost.tunnels.relay import endpoints
from uaihost.tunnels.table import TunnelTable
from uaihost.tunnels.targets import PortTable
from uaihost.tunnels.upstream import NotListening, NoWay, tune
from uaihost.wire.frames import RequestLine, TunnelAck, TunnelClose, TunnelOpen, TunnelRequestEnd

PORT = 5173


@implementer(IHalfCloseableProtocol)
class Heard(Protocol):
    """What came from the server, and which halves have ended."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.ended: list[str] = []

    def connectionMade(self) -> None:
        tune(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def readConnectionLost(self) -> None:
        self.ended.append("read")

    def writeConnectionLost(self) -> None:
        self.ended.append("write")

    def connectionLost(self, reason: Any = None) -> None:
        self.ended.append("all")


class RelayCase(SynchronousTestCase):
    """server: the relay's socket; address: a port in its container that is not published."""

    def setUp(self) -> None:
        self.reactor: Any = SocketReactor()
        self.path = short_folder(self) / "relay.sock"
        self.server = listening(self, self.path)
        self.address = Address("127.0.0.1", 0, str(self.path), PORT)

    def accept(self) -> socket.socket:
        """The relay's side of the latest connection."""
        self.reactor.turn()
        peer, _ = self.server.accept()
        self.addCleanup(peer.close)
        return peer

    def read(self, peer: socket.socket) -> bytes:
        self.reactor.turn()
        return peer.recv(65536)

    def send(self, peer: socket.socket, data: bytes) -> None:
        peer.sendall(data)
        self.reactor.turn()


class EndpointTests(RelayCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.nothing_is_left)

    def nothing_is_left(self) -> None:
        self.reactor.turn()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def connect(self, address: Address | None = None) -> Deferred[Any]:
        return endpoints(self.reactor)(address or self.address).connect(Factory.forProtocol(Heard))

    def asked(self, address: Address | None = None) -> tuple[Deferred[Any], socket.socket]:
        """A connection of which the relay has read the first line."""
        connecting = self.connect(address)
        peer = self.accept()
        self.assertEqual(self.read(peer), b"connect 5173\n")
        self.assertNoResult(connecting)
        return connecting, peer

    def published(self) -> Address:
        return Address("127.0.0.1", 32000, str(self.path), PORT)

    def test_after_its_line_the_connection_is_the_servers(self) -> None:
        connecting, peer = self.asked()
        for byte in b"ok\n":
            self.assertNoResult(connecting)
            self.send(peer, bytes([byte]))
        heard = self.successResultOf(connecting)
        self.assertEqual(heard.data, b"")
        heard.transport.write(b"ping")
        self.assertEqual(self.read(peer), b"ping")
        self.send(peer, b"error is the server's own word\n")
        self.assertEqual(heard.data, b"error is the server's own word\n")
        heard.transport.loseWriteConnection()
        self.assertEqual(self.read(peer), b"")
        peer.shutdown(socket.SHUT_WR)
        self.reactor.turn()
        self.assertEqual(heard.ended, ["write", "read"])
        heard.transport.loseConnection()

    def test_what_comes_with_the_line_is_the_servers(self) -> None:
        connecting, peer = self.asked()
        self.send(peer, b"ok\n220 ready\nok\n")
        heard = self.successResultOf(connecting)
        self.assertEqual(heard.data, b"220 ready\nok\n")
        heard.transport.abortConnection()

    def test_no_server_is_the_answer_even_where_a_port_is_published(self) -> None:
        for address in (self.address, self.published()):
            connecting, peer = self.asked(address)
            self.send(peer, b"error Connection \x1b[31mrefused\n")
            error = self.failureResultOf(connecting, NotListening).value
            self.assertEqual(str(error), "Connection ?[31mrefused")
            self.assertEqual(peer.recv(10), b"")
        self.assertEqual(self.reactor.tcpClients, [])

    def test_what_is_no_relay_is_not_waited_for(self) -> None:
        for said in (b"hello\n", b"ok \n", b"error\n", b"x" * (relay.LINE_LIMIT + 1), b"ok"):
            connecting, peer = self.asked()
            self.send(peer, said)
            if said == b"ok":
                peer.close()
                self.reactor.turn()
            self.failureResultOf(connecting, NoWay)

    def test_a_relay_that_says_nothing_is_given_up(self) -> None:
        connecting, peer = self.asked()
        self.reactor.advance(relay.ANSWER_TIMEOUT)
        self.reactor.turn()
        self.assertIn("in time", str(self.failureResultOf(connecting, NoWay).value))
        self.assertEqual(peer.recv(10), b"")

    def test_without_a_relay_the_published_port_is_the_way(self) -> None:
        self.server.close()
        elsewhere = short_folder(self) / "engine.sock"
        engine = listening(self, elsewhere)
        for place in (lambda: None, self.path.unlink, lambda: self.path.symlink_to(elsewhere)):
            place()
            connecting = self.connect(self.published())
            self.reactor.turn()
            host, port, factory, _, _ = self.reactor.tcpClients[-1]
            self.assertEqual((host, port), ("127.0.0.1", 32000))
            protocol = factory.buildProtocol(None)
            transport = Wire()
            protocol.makeConnection(transport)
            self.assertIsInstance(self.successResultOf(connecting), Heard)
            self.assertEqual(transport.value(), b"")
        self.assertEqual(len(self.reactor.tcpClients), 3)
        self.assertRaises(BlockingIOError, engine.accept)

    def test_a_relay_that_fails_and_a_published_port_that_fails_too(self) -> None:
        connecting, peer = self.asked(self.published())
        peer.close()
        self.reactor.turn()
        factory = self.reactor.tcpClients[-1][2]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.failureResultOf(connecting, ConnectionRefusedError)

    def test_neither_relay_nor_port(self) -> None:
        self.server.close()
        self.path.unlink()
        connecting = self.connect()
        self.reactor.turn()
        self.assertIn("No such file", str(self.failureResultOf(connecting, NoWay).value))
        self.path.symlink_to("/nowhere")
        connecting = self.connect()
        self.assertIn("is not a socket", str(self.failureResultOf(connecting, NoWay).value))
        self.assertEqual(self.reactor.tcpClients, [])

    def test_whoever_gives_up_leaves_nothing(self) -> None:
        connecting, peer = self.asked(self.published())
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertEqual(self.read(peer), b"")
        early = self.connect(self.published())
        early.cancel()
        self.reactor.turn()
        self.failureResultOf(early)
        self.assertEqual(self.reactor.tcpClients, [])

    @given(
        strategies.lists(
            strategies.binary(max_size=20) | strategies.sampled_from([b"ok\n", b"error no\n", b"\n"])
        )
    )
    def test_any_answer_is_a_connection_or_a_refusal(self, pieces: list[bytes]) -> None:
        case = EndpointTests("test_what_comes_with_the_line_is_the_servers")
        RelayCase.setUp(case)
        self.addCleanup(case.doCleanups)
        connecting, peer = case.asked()
        for piece in pieces:
            try:
                case.send(peer, piece)
            except OSError:
                break
        peer.close()
        case.reactor.turn()
        whole = b"".join(pieces)
        line, end, rest = whole.partition(b"\n")
        if end and line == b"ok":
            self.assertEqual(self.successResultOf(connecting).data, rest)
        else:
            self.failureResultOf(connecting, NotListening if end and line.startswith(b"error ") else NoWay)
        case.nothing_is_left()


class TunnelTests(RelayCase):
    """Whole tunnels through the relay."""

    def setUp(self) -> None:
        super().setUp()
        targets = PortTable()
        targets.set_task("t", None, {"web": self.address})
        self.table = TunnelTable(self.reactor, targets)
        self.link = FakeLink()
        self.table.link_up(self.link, self.link, self.fail)
        self.addCleanup(self.reactor.turn)
        self.addCleanup(self.table.stop)

    def open(self, tunnel_id: str, upgrade: bool = False) -> None:
        line = RequestLine("GET", "/", [("Host", "example")])
        self.table.open(TunnelOpen(tunnel_id, "preview", "t", line, upgrade, "web"))
        if not upgrade:
            self.table.request_end(TunnelRequestEnd(tunnel_id))
        self.reactor.turn()

    def last(self) -> Any:
        return self.link.frames()[-1]

    def test_a_connection_through_the_relay_is_kept_for_the_next_request(self) -> None:
        self.open("a")
        peer = self.accept()
        self.assertEqual(self.read(peer), b"connect 5173\n")
        self.send(peer, b"ok\n")
        for tunnel_id in ("a", "b", "c"):
            if tunnel_id != "a":
                self.open(tunnel_id)
            self.assertTrue(self.read(peer).startswith(b"GET / HTTP/1.1\r\n"))
            self.send(peer, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
            self.assertEqual(self.last(), TunnelClose(tunnel_id, "upstream ended"))
            self.assertEqual(self.link.data(tunnel_id), b"done")
        self.assertRaises(BlockingIOError, self.server.accept)
        self.reactor.advance(IDLE_SECONDS)
        self.assertEqual(self.read(peer), b"")

    def test_a_raw_tunnel(self) -> None:
        self.open("r", upgrade=True)
        peer = self.accept()
        self.assertEqual(self.read(peer), b"connect 5173\n")
        self.send(peer, b"ok\n")
        self.assertIn(b"GET / HTTP/1.1\r\n", self.read(peer))
        self.send(peer, b"HTTP/1.1 101 Go\r\n\r\nhello")
        self.table.deliver("r", b"to the server")
        self.table.request_end(TunnelRequestEnd("r"))
        self.assertEqual((self.read(peer), self.read(peer)), (b"to the server", b""))
        self.send(peer, b" and bye")
        peer.shutdown(socket.SHUT_WR)
        self.reactor.turn()
        self.assertEqual(self.link.data("r"), b"hello and bye")
        self.assertEqual(self.last(), TunnelClose("r", "upstream closed"))

    def test_what_the_person_is_told(self) -> None:
        for upgrade in (False, True):
            self.open(f"a{upgrade}", upgrade)
            peer = self.accept()
            self.send(peer, b"error Connection refused\n")
            ack = self.last()
            self.assertIsInstance(ack, TunnelAck)
            self.assertEqual((ack.ok, ack.status), (False, 502))
            self.assertEqual(
                ack.message,
                "cannot connect to port 5173 of the task (Connection refused); "
                "start the server in the task, listening on this port",
            )
        self.server.close()
        self.open("b")
        self.assertEqual(self.last().status, 502)
        self.assertIn("its relay does not answer", self.last().message)
        self.assertEqual(self.table.open_tunnels, 0)
