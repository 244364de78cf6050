"""The bridge's tunnels by mux.1 over real sockets, and what both kinds of host have in common."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import deferLater
from zope.interface import implementer

from uaihost.test.integration import test_bridge_tunnels as revision_1
from uaihost.test.integration.bridge_ends import MIB, Client, Pipe
from uaihost.test.integration.bridge_host import PAGE, Upstream
from uaihost.test.integration.mux_host import MuxHost, heard_end
from uaihost.wire import mux

reactor: Any = _reactor

UPGRADE = {"Connection": "Upgrade", "Upgrade": "echo"}


class MuxCase(revision_1.BridgeCase):
    kind = MuxHost
    host: MuxHost

    async def tearDown(self) -> None:  # type: ignore[override]
        self.assertEqual(self.host.violations, [])

    async def pause(self, seconds: float = 0.05) -> None:
        """Let the sockets run."""
        await deferLater(reactor, seconds)


class RequestTests(MuxCase, revision_1.RequestTests):
    """All of revision 1's, and what it cannot say."""

    async def test_trailers(self) -> None:
        class Trailers(Upstream):
            def ended(self) -> None:
                self.ack(200, [["Trailer", "Digest"]])
                self.send(b"body")
                self.host.end(self.id, trailers=[["Digest", "x"]])  # type: ignore[attr-defined]

        self.serve(Trailers)
        browser = await self.browser()
        browser.transport.write(self.head())
        await browser.see(b"4\r\nbody\r\n0\r\nDigest: x\r\n\r\n")
        browser.transport.write(self.head())
        await browser.see(b"0\r\nDigest: x\r\n\r\n")

    async def test_interim_answers(self) -> None:
        class Continue(Upstream):
            def start(self) -> None:
                self.ack(103, [["Link", "</a.css>"]], "Early Hints")
                self.ack(100, [], "Continue")

            def ended(self) -> None:
                self.ack(200, [["Content-Length", str(len(self.body))]])
                self.send(self.body)
                self.close()

        self.serve(Continue)
        browser = await self.browser()
        browser.transport.write(self.head("POST", Content_Length="4", Expect="100-continue"))
        await browser.see(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        browser.transport.write(b"body")
        await browser.see(b"\r\n\r\nbody")

    async def test_a_response_that_comes_while_the_upload_goes_on(self) -> None:
        class Talk(Upstream):
            def data(self, data: bytes) -> None:
                if not self.body:
                    self.ack(200, [["Content-Length", "2"]])
                    self.send(b"ok")
                    self.host.frames_out(mux.end_frame(self.id))  # type: ignore[attr-defined]
                super().data(data)

            def ended(self) -> None:
                """The answer was sent."""

        made = self.serve(Talk)
        browser = await self.browser()
        browser.transport.write(self.head("POST", Content_Length=str(MIB)) + bytes(10))
        await browser.see(b"\r\n\r\nok")
        ended = heard_end(self.host, 1)
        browser.transport.write(bytes(MIB - 10))
        await ended
        self.assertEqual(len(made[0].body), MIB)
        self.host.tunnel = Upstream
        browser.transport.write(self.head())
        await browser.see(PAGE)

    async def test_a_reset_in_the_middle_is_seen_by_the_browser(self) -> None:
        class Half(Upstream):
            def ended(self) -> None:
                self.ack(200, [])
                self.send(b"x" * 100)
                self.host.end(self.id, "connection reset by peer")  # type: ignore[attr-defined]

        self.serve(Half)
        browser = await self.browser()
        browser.transport.write(self.head())
        self.assertIs(await browser.gone, ConnectionLost)
        self.assertNotIn(b"\r\n0\r\n", browser.data)


class CommonTests(revision_1.BridgeCase):
    """What every host can say; by revision 1."""

    async def test_an_answer_while_the_body_still_comes(self) -> None:
        class Refuse(Upstream):
            def data(self, data: bytes) -> None:
                if not self.body:
                    self.ack(413, [["Content-Length", "5"]], "Content Too Large")
                    self.send(b"large")
                    self.close()
                self.body += data

        made = self.serve(Refuse)
        browser = await self.browser()
        browser.transport.write(self.head("POST", Content_Length=str(100 * MIB)))
        browser.transport.write(bytes(MIB))
        await browser.see(b"\r\n\r\nlarge")
        # More comes, is read and thrown away; the end is a proper one.
        self.assertIs(await browser.gone, ConnectionDone)
        self.assertIn(b"HTTP/1.1 413 Content Too Large\r\n", browser.data)
        self.assertLess(len(made[0].body), MIB + 1)

    async def test_an_upload_that_is_broken_off(self) -> None:
        made = self.serve(Upstream)
        browser = await self.browser()
        browser.transport.write(self.head("POST", Content_Length=str(10 * MIB)) + bytes(MIB))
        while not made or len(made[0].body) < MIB:
            await deferLater(reactor, 0.01)
        closed = self.host.heard(lambda frame: frame["kind"] == "tunnel.close")
        browser.transport.abortConnection()
        await closed
        self.assertTrue(made[0].is_lost)

    async def test_the_close_codes_of_websockets_pass_unchanged(self) -> None:
        for closer in ("client", "server"):
            seen: Deferred[tuple[int, str]] = Deferred()
            address = f"ws://shop-web.preview.localhost:{self.bridge.port}/"
            server: Any = WebSocketServerFactory()
            server.protocol = _Closes
            client: Any = WebSocketClientFactory(address)
            client.protocol = _Opens
            for factory in (server, client):
                factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
                factory.closes = factory is (client if closer == "client" else server)
                factory.seen = seen
            client.setProtocolOptions(serverConnectionDropTimeout=0)
            port = reactor.listenTCP(0, server, interface="127.0.0.1")
            self.addCleanup(port.stopListening)
            self.patch(Pipe, "number", port.getHost().port)
            self.serve(Pipe)
            await TCP4ClientEndpoint(reactor, "127.0.0.1", self.bridge.port).connect(client)
            self.assertEqual(await seen.addTimeout(10, reactor), (4321, "b\u00fccher"), closer)


class _Closer:
    """Closes when it is to, else says what it was closed with."""

    factory: Any

    def onOpen(self) -> None:
        if self.factory.closes:
            self.sendClose(4321, "b\u00fccher")  # type: ignore[attr-defined]

    def onClose(self, clean: bool, code: int | None, reason: str | None) -> None:
        if not self.factory.closes:
            self.factory.seen.callback((code, reason))


class _Closes(_Closer, WebSocketServerProtocol):  # type: ignore[misc]
    pass


class _Opens(_Closer, WebSocketClientProtocol):  # type: ignore[misc]
    pass


class CommonMuxTests(MuxCase, CommonTests):
    """The same by mux.1."""


@implementer(IHalfCloseableProtocol)
class HalfClient(Client):
    """A browser that knows half-closed connections; `half` fires when the other end closed its own."""

    def __init__(self) -> None:
        super().__init__()
        self.half: Deferred[None] = Deferred()

    def readConnectionLost(self) -> None:
        self.half.callback(None)

    def writeConnectionLost(self) -> None:
        """As was asked."""


class UpgradeTests(MuxCase, revision_1.UpgradeTests):
    async def upgraded(self) -> tuple[Any, Any]:
        """A browser and an upstream with a pipe between them, both of which know half-closed connections."""

        class Agree(Upstream):
            def start(self) -> None:
                self.ack(101, [["Upgrade", "echo"]], "Switching Protocols")

            def ended(self) -> None:
                """Only its half."""

        made = self.serve(Agree)
        browser = await self.browser(HalfClient)
        browser.transport.write(self.head(**UPGRADE))
        await browser.see(b"\r\n\r\n")
        return browser, made[0]

    async def test_the_browsers_half_ends_first(self) -> None:
        browser, upstream = await self.upgraded()
        ended = heard_end(self.host, upstream.id)
        browser.transport.write(b"last words")
        browser.transport.loseWriteConnection()
        await ended
        self.assertEqual(upstream.body, b"last words")
        upstream.send(b"an answer")
        await browser.see(b"an answer")
        upstream.close("upstream closed")
        await browser.half

    async def test_the_hosts_half_ends_first(self) -> None:
        browser, upstream = await self.upgraded()
        upstream.send(b"last words")
        self.host.end(upstream.id, "upstream closed")
        await browser.half
        self.assertTrue(browser.data.endswith(b"last words"))
        ended = heard_end(self.host, upstream.id)
        browser.transport.write(b"still here")
        browser.transport.loseWriteConnection()
        await ended
        self.assertEqual(upstream.body, b"still here")


class Pour(Upstream):
    """Sends `size` bytes as there is credit for them."""

    size = 100 * MIB
    piece = os.urandom(MIB)

    def start(self) -> None:
        self.digest = hashlib.sha256()
        self.left = self.size
        self.ack(200, [["Content-Length", str(self.size)]])

    def ended(self) -> None:
        while self.left:
            self.left -= MIB
            self.digest.update(self.piece)
            self.send(self.piece)
        self.close()


class FlowTests(MuxCase):
    async def test_a_browser_that_does_not_read_stops_nobody_else(self) -> None:
        made = self.serve(Pour)
        stuck, quick = await self.browser(), await self.browser()
        stuck.keep = quick.keep = False
        stuck.transport.pauseProducing()
        stuck.transport.write(self.head(Connection="close"))
        stopped = -1
        # Until the host cannot send any more: every buffer on the way is full.
        while not made or self.host.sent != stopped:
            stopped = self.host.sent
            await self.pause(0.5)
        # What the kernel takes, and one window.
        self.assertLess(stopped, 16 * MIB)
        quick.transport.write(self.head(Connection="close"))
        await quick.gone
        self.assertGreater(quick.size, Pour.size)
        self.assertEqual(self.host.sent, stopped + Pour.size)
        stuck.transport.resumeProducing()
        await stuck.gone
        self.assertGreater(stuck.size, Pour.size)
        self.assertEqual([upstream.left for upstream in made], [0, 0])

    async def test_the_bytes_of_many_at_once_arrive_as_they_are(self) -> None:
        class Some(Pour):
            size = 4 * MIB

        made = self.serve(Some)
        browsers = [await self.browser() for _ in range(10)]
        for browser in browsers:
            browser.transport.write(self.head(Connection="close"))
        for browser in browsers:
            await browser.gone
            body = bytes(browser.data).partition(b"\r\n\r\n")[2]
            self.assertEqual(hashlib.sha256(body).digest(), made[0].digest.digest())

    async def test_an_upload_waits_for_the_hosts_credit(self) -> None:
        class Slow(Upstream):
            def start(self) -> None:
                self.host.lanes[self.id].reading = False  # type: ignore[attr-defined]

        made = self.serve(Slow)
        body = os.urandom(8 * MIB)
        browser = await self.browser()
        browser.transport.write(self.head("POST", Content_Length=str(len(body))) + body)
        while not made or len(made[0].body) < mux.TUNNEL_WINDOW:
            await self.pause()
        await self.pause(0.3)
        self.assertEqual(len(made[0].body), mux.TUNNEL_WINDOW)
        other = await self.browser()
        self.host.tunnel = Upstream
        other.transport.write(self.head())
        await other.see(PAGE)
        self.host.lanes[made[0].id].reading = True
        self.host.give(made[0].id, mux.TUNNEL_WINDOW)
        await browser.see(PAGE)
        self.assertEqual(hashlib.sha256(made[0].body).digest(), hashlib.sha256(body).digest())

    async def test_a_broken_message_ends_the_connection_with_4002(self) -> None:
        self.host.frames_out(b"\x03\x00")
        await self.host.gone
        assert self.host.close is not None
        self.assertEqual(self.host.close[0], 4002)
