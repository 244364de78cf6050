"""Tunnels to real servers over real sockets; the link is in memory."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from uaihost.interfaces import Address
from uaihost.test.fakes_tunnels import FakeLink
from uaihost.tunnels.table import TunnelTable
from uaihost.tunnels.targets import PortTable
from uaihost.wire.frames import RequestLine, TunnelAck, TunnelClose, TunnelOpen, TunnelRequestEnd

reactor: Any = global_reactor


class Echo(Resource):
    isLeaf = True

    def render(self, request: Request) -> bytes:
        body = request.content.read() if request.content is not None else b""
        request.setHeader("X-Method", request.method)
        request.setHeader("X-Received-Host", request.getHeader("host") or "")
        request.setHeader("X-Original-Host", request.getHeader("x-forwarded-host") or "")
        request.setHeader("Content-Length", str(len(body)))
        return body


class Pieces(Resource):
    """A response of unknown length: ten pieces, chunked."""

    isLeaf = True

    def render_GET(self, request: Request) -> int:
        for number in range(10):
            request.write(b"%d" % number * 1000)
        request.finish()
        return NOT_DONE_YET


class Bulk(Resource):
    """`size` bytes, as fast as they are taken."""

    isLeaf = True
    size = 20_000_000

    def render_GET(self, request: Request) -> int:
        request.setHeader("Content-Length", str(self.size))
        left = [self.size]

        class Source:
            def resumeProducing(self) -> None:
                piece = min(left[0], 100_000)
                left[0] -= piece
                request.write(b"b" * piece)
                if not left[0]:
                    request.unregisterProducer()
                    request.finish()

            def stopProducing(self) -> None:
                left[0] = 0

        request.registerProducer(Source(), False)
        return NOT_DONE_YET


class CountingSite(Site):
    connections = 0

    def buildProtocol(self, addr: Any) -> Any:
        self.connections += 1
        return super().buildProtocol(addr)


class TunnelSocketTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.targets = PortTable()
        self.table = TunnelTable(reactor, self.targets)
        self.link = FakeLink()
        self.waiter: tuple[Callable[[], bool], Deferred[None]] | None = None
        self.link.left = self._look
        self.table.link_up(self.link, self.link, self.fail)
        self.addCleanup(self._settle)
        self.addCleanup(self.table.stop)
        root = Resource()
        root.putChild(b"echo", Echo())
        root.putChild(b"pieces", Pieces())
        root.putChild(b"bulk", Bulk())
        self.site = CountingSite(root)
        self.site.noisy = False
        self.targets.set_task("t", None, {"web": self.listen(self.site)})

    async def _settle(self) -> None:
        # An aborted connection ends in the reactor's next turns.
        await deferLater(reactor, 0.02)

    def listen(self, factory: Any) -> Address:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return Address("127.0.0.1", port.getHost().port)

    def _look(self) -> None:
        if self.waiter is not None and self.waiter[0]():
            _, done = self.waiter
            self.waiter = None
            reactor.callLater(0, done.callback, None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; looked at whenever something leaves."""
        if not condition():
            done: Deferred[None] = Deferred()
            self.waiter = (condition, done)
            await done

    def closed(self, tunnel_id: str) -> TunnelClose | None:
        found = [
            frame
            for frame in self.link.frames()
            if isinstance(frame, TunnelClose) and frame.tunnelId == tunnel_id
        ]
        return found[0] if found else None

    def ack(self, tunnel_id: str) -> TunnelAck | None:
        found = [f for f in self.link.frames() if isinstance(f, TunnelAck) and f.tunnelId == tunnel_id]
        return found[0] if found else None

    def open(
        self, tunnel_id: str, method: str, url: str, *headers: tuple[str, str], upgrade: bool = False
    ) -> None:
        line = RequestLine(method, url, [("Host", "t-web.example"), *headers])
        self.table.open(TunnelOpen(tunnel_id, "preview", "t", line, upgrade, "web"))

    async def fetch(
        self,
        tunnel_id: str,
        method: str,
        url: str,
        *headers: tuple[str, str],
        body: list[bytes] | None = None,
    ) -> tuple[TunnelAck, bytes]:
        self.open(tunnel_id, method, url, *headers)
        for piece in body or []:
            self.table.deliver(tunnel_id, piece)
        self.table.request_end(TunnelRequestEnd(tunnel_id))
        await self.until(lambda: self.closed(tunnel_id) is not None)
        close, ack = self.closed(tunnel_id), self.ack(tunnel_id)
        assert close is not None and ack is not None
        self.assertEqual(close.reason, "upstream ended")
        return ack, self.link.data(tunnel_id)

    async def test_a_request_and_its_answer(self) -> None:
        ack, body = await self.fetch("a", "GET", "/echo")
        self.assertEqual((ack.ok, ack.status, ack.statusText, body), (True, 200, "OK", b""))
        headers = dict(ack.headers or [])
        self.assertEqual(headers["X-Received-Host"], "127.0.0.1")
        self.assertEqual(headers["X-Original-Host"], "t-web.example")

    async def test_bodies_of_known_and_unknown_length_go_up(self) -> None:
        pieces = [bytes([number]) * 50_000 for number in range(20)]
        whole = b"".join(pieces)
        for tunnel_id, header in (
            ("a", ("Content-Length", str(len(whole)))),
            ("b", ("Transfer-Encoding", "chunked")),
            ("c", ("X-Nothing", "announced")),
        ):
            ack, body = await self.fetch(tunnel_id, "POST", "/echo", header, body=pieces)
            self.assertEqual((ack.status, body == whole), (200, True), tunnel_id)

    async def test_a_chunked_answer_comes_down_without_its_framing(self) -> None:
        ack, body = await self.fetch("a", "GET", "/pieces")
        self.assertEqual(body, b"".join(b"%d" % number * 1000 for number in range(10)))
        self.assertNotIn("transfer-encoding", {name.lower() for name, _ in ack.headers or []})

    async def test_requests_one_after_another_share_a_connection(self) -> None:
        for number in range(5):
            await self.fetch(f"t{number}", "GET", ("/echo", "/pieces")[number % 2])
        self.assertEqual(self.site.connections, 1)

    async def test_a_connection_closed_while_idle_is_replaced(self) -> None:
        self.site.timeOut = 0.05
        await self.fetch("a", "GET", "/echo")
        await deferLater(reactor, 0.2)
        ack, _ = await self.fetch("b", "GET", "/echo")
        self.assertEqual((ack.status, self.site.connections), (200, 2))

    async def test_the_close_comes_after_all_data_however_slow_the_link(self) -> None:
        self.link.block()
        self.open("a", "GET", "/bulk")
        self.table.request_end(TunnelRequestEnd("a"))
        while self.closed("a") is None:
            await deferLater(reactor, 0.005)
            waiting = sum(outlet._size for outlet in self.link.outlets)
            # A share, and one read more.
            self.assertLess(waiting, 600_000)
            self.link.unblock()
            self.link.block()
        self.assertEqual(len(self.link.data("a")), Bulk.size)
        order = self.link.order()
        self.assertEqual((order[0], order[-1]), ("TunnelAck", "TunnelClose"))
        self.assertEqual(set(order[1:-1]), {"data"})

    async def test_nobody_listens(self) -> None:
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        address = Address("127.0.0.1", port.getHost().port)
        await port.stopListening()
        self.targets.set_task("t", None, {"web": address})
        for upgrade in (False, True):
            tunnel_id = f"t{upgrade}"
            self.open(tunnel_id, "GET", "/", upgrade=upgrade)
            await self.until(lambda tunnel_id=tunnel_id: self.ack(tunnel_id) is not None)  # type: ignore[misc]
            ack = self.ack(tunnel_id)
            assert ack is not None
            self.assertEqual((ack.ok, ack.status), (False, 502))
            self.assertIn("refused", ack.message or "")
        self.assertEqual(self.table.open_tunnels, 0)

    async def test_a_websocket_through_a_raw_tunnel(self) -> None:
        self.targets.set_task("t", None, {"web": self.listen(echo_factory())})
        key = base64.b64encode(b"0123456789abcdef").decode()
        self.open(
            "w",
            "GET",
            "/socket",
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", key),
            upgrade=True,
        )
        await self.until(lambda: self.ack("w") is not None)
        ack = self.ack("w")
        assert ack is not None
        self.assertEqual((ack.ok, ack.status, ack.statusText), (True, 101, "Switching Protocols"))
        guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode() + guid).digest()).decode()
        self.assertIn(accept, [value for _, value in ack.headers or []])
        payload = bytes(range(256)) * 200
        self.table.deliver("w", masked(payload))
        expected = b"\x82\x7e" + len(payload).to_bytes(2, "big") + payload
        await self.until(lambda: len(self.link.data("w")) >= len(expected))
        self.assertEqual(self.link.data("w"), expected)
        self.table.close(TunnelClose("w", "the tab was closed"))
        self.assertEqual(self.closed("w"), TunnelClose("w", "the tab was closed"))
        self.assertEqual(self.table.open_tunnels, 0)

    async def test_a_raw_server_that_answers_at_the_end_of_file(self) -> None:
        @implementer(IHalfCloseableProtocol)
        class Counter(Protocol):
            received = b""

            def dataReceived(self, data: bytes) -> None:
                if not self.received and self.transport is not None:
                    self.transport.write(b"HTTP/1.1 101 Go\r\n\r\n")
                self.received += data

            def readConnectionLost(self) -> None:
                assert self.transport is not None
                self.transport.write(b"%d" % len(self.received.split(b"\r\n\r\n", 1)[1]))
                self.transport.loseConnection()

            def writeConnectionLost(self) -> None:
                pass

        self.targets.set_task("t", None, {"web": self.listen(Factory.forProtocol(Counter))})
        self.open("r", "GET", "/", upgrade=True)
        for _ in range(30):
            self.table.deliver("r", b"x" * 100_000)
        self.table.request_end(TunnelRequestEnd("r"))
        await self.until(lambda: self.closed("r") is not None)
        self.assertEqual(self.link.data("r"), b"3000000")
        close = self.closed("r")
        assert close is not None
        self.assertEqual(close.reason, "upstream closed")


class EchoSocket(WebSocketServerProtocol):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


def echo_factory() -> WebSocketServerFactory:
    factory = WebSocketServerFactory()
    factory.protocol = EchoSocket
    factory.noisy = False
    return factory


def masked(payload: bytes) -> bytes:
    """A binary message as a browser sends it (RFC 6455, section 5.2)."""
    mask = b"\x11\x22\x33\x44"
    size = len(payload).to_bytes(2, "big")
    return b"\x82\xfe" + size + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
