"""Which connection is given to whom, and that every byte that was read is replayed."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase

from uaihost.bridge.front import HEAD_TIMEOUT, Front, Kinds, first_head
from uaihost.bridge.names import Names
from uaihost.bridge.proxy import LINGER, MAX_HEAD
from uaihost.test.bridge.test_names import Known, known
from uaihost.test.support import given, strategies


class Recorder(Protocol):
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.data = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


class _Transport(StringTransportWithDisconnection):
    half_closed = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True


class FrontTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.made: list[Recorder] = []

        def build(kind: str) -> Any:
            def make(_: object) -> Recorder:
                self.made.append(Recorder(kind))
                return self.made[-1]

            return make

        self.front = Front(self.clock)
        names = Names(8789, Known(known("a", "web")))
        self.front.kinds = Kinds(names, build("app"), build("host"), build("tunnel"))

    def connect(self) -> tuple[Any, _Transport]:
        protocol = self.front.buildProtocol(None)
        transport = _Transport()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return protocol, transport

    def kind_of(self, host: str, path: str = "/") -> str:
        protocol, transport = self.connect()
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        protocol.dataReceived(head)
        if transport.value():
            return str(transport.value().split()[1], "ascii")
        self.assertEqual(self.made[-1].data, head)
        return self.made[-1].kind

    def test_the_table(self) -> None:
        for host, path, kind in (
            ("localhost:8789", "/", "app"),
            ("127.0.0.1:8789", "/api/state", "app"),
            ("[::1]:8789", "/healthz", "app"),
            ("127.0.0.1:8789", "/host", "host"),
            ("localhost:8789", "/host?x=1", "host"),
            ("localhost:8789", "/hosts", "app"),
            ("a-web.preview.localhost:8789", "/host", "tunnel"),
            ("a.editor.localhost:8789", "/", "tunnel"),
            ("gone-web.preview.localhost:8789", "/", "tunnel"),
            ("evil.example:8789", "/", "421"),
            ("evil.example:8789", "/host", "421"),
            ("localhost:1", "/", "421"),
        ):
            self.assertEqual(self.kind_of(host, path), kind, (host, path))

    def test_any_blank_line_ends_the_first_head(self) -> None:
        for end in (b"\r\n\r\n", b"\n\n", b"\n\r\n", b"\r\n\n"):
            protocol, _ = self.connect()
            protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: localhost:8789" + end)
            self.assertEqual(self.made[-1].kind, "app", end)

    def test_a_missing_or_repeated_host_is_foreign(self) -> None:
        for lines in (b"", b"Host: localhost:8789\r\nHost: evil.example:8789\r\n"):
            protocol, transport = self.connect()
            protocol.dataReceived(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")
            self.assertIn(b" 421 ", transport.value())
            self.assertTrue(transport.half_closed)

    @given(strategies.lists(strategies.integers(1, 60), max_size=12))
    def test_the_pieces_of_a_head_do_not_matter(self, cuts: list[int]) -> None:
        data = b"POST /x HTTP/1.1\r\nHost: localhost:8789\r\nContent-Length: 4\r\n\r\nbody"
        protocol, _ = self.connect()
        at = 0
        for cut in cuts:
            protocol.dataReceived(data[at : at + cut])
            at += cut
        protocol.dataReceived(data[at:])
        self.assertEqual((self.made[-1].kind, self.made[-1].data), ("app", data))

    def test_a_head_without_end_is_refused(self) -> None:
        protocol, transport = self.connect()
        protocol.dataReceived(b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD)
        self.assertIn(b" 431 ", transport.value())
        self.assertTrue(transport.half_closed)
        protocol.dataReceived(b"more")
        self.clock.advance(LINGER)
        self.assertTrue(transport.disconnected or not transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_connection_that_says_nothing_is_ended(self) -> None:
        _, transport = self.connect()
        self.clock.advance(HEAD_TIMEOUT)
        self.assertTrue(transport.disconnected or not transport.connected)

    def test_what_follows_goes_to_whoever_got_it(self) -> None:
        protocol, _ = self.connect()
        protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: localhost:8789\r\n\r\n")
        protocol.dataReceived(b"more")
        self.assertTrue(self.made[-1].data.endswith(b"\r\n\r\nmore"))
        protocol.connectionLost()
        self.assertTrue(self.made[-1].lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_dropping_ends_all_but_the_hosts(self) -> None:
        host, host_transport = self.connect()
        host.dataReceived(b"GET /host HTTP/1.1\r\nHost: localhost:8789\r\n\r\n")
        _, other = self.connect()
        done = self.front.drop()
        self.assertFalse(other.connected)
        self.assertTrue(host_transport.connected)
        self.assertNoResult(done)
        host_transport.loseConnection()
        self.successResultOf(done)

    @given(strategies.binary(max_size=200))
    def test_any_bytes_have_a_first_head(self, data: bytes) -> None:
        target, host = first_head(data)
        self.assertIsInstance(target, bytes)
        self.assertIsInstance(host, str)
