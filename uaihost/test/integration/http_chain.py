"""The whole way of HTTP: a browser's socket, a bridge, its WebSocket, the host's service, a server."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from uaihost.bridge.hosts import HostSession
from uaihost.bridge.service import BridgeSettings, make_bridge
from uaihost.test.integration.bridge_ends import Client
from uaihost.test.integration.service import TOKEN, Service
from uaihost.test.integration.upstreams import Script, Spoken
from uaihost.test.support import short_folder

reactor: Any = _reactor

TASK = "shop"


class ChainCase(TestCase):
    """A chain whose last part, `server`, and whose first one are in the test's own hands.

    mux: whether tunnels are those of mux.1, else of revision 1.
    """

    timeout = 60
    mux = True

    async def setUp(self) -> None:  # type: ignore[override]
        if not self.mux:
            self.patch(HostSession, "_greet", lambda session, features: None)
        folder, data = short_folder(self), short_folder(self)
        self.bridge = make_bridge(reactor, BridgeSettings(0, "127.0.0.1", folder, (TOKEN,), "key"))
        self.bridge.startService()
        self.addCleanup(self.bridge.stopService)
        await self.bridge.started()
        self.server = Script()
        port = reactor.listenTCP(0, self.server, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.service = Service(reactor, f"ws://127.0.0.1:{self.bridge.port}/host", data)
        self.addCleanup(self._leave)
        await self.service.expose(TASK, [("web", port.getHost().port)])
        self.service.start()
        await self._reached()

    async def _reached(self) -> None:
        """Wait for the host, another process, to have connected and told of the preview."""
        end = reactor.seconds() + 30
        while reactor.seconds() < end:
            waiting = self.server.connection()
            browser = await self.browser()
            browser.transport.write(self.head())
            await self._first(waiting, browser.gone)
            if waiting.called:
                server = await waiting
                server.transport.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                await browser.see(b" 204 ")
                await server.lost
                browser.transport.loseConnection()
                await browser.gone
                return
            self.server.forget(waiting)
            await deferLater(reactor, 0.05)
        self.fail(f"the host does not serve the preview; it printed: {self.service.output!r}")

    async def _leave(self) -> None:
        """End the host in order, so that nothing that the bridge asked of it stays without an answer."""
        if self.service.status is None and self.service.transport is not None:
            self.service.signal()
            await self.service.exit()

    async def _first(self, *waiting: Deferred[Any]) -> None:
        """Until one of them has fired; their results stay theirs."""
        done: Deferred[None] = Deferred()

        def fired(result: Any) -> Any:
            if not done.called:
                done.callback(None)
            return result

        for each in waiting:
            each.addCallback(fired)
        await done

    async def browser(self) -> Any:
        """A fresh connection to the bridge."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.bridge.port)
        client: Any = await endpoint.connect(Factory.forProtocol(Client))
        self.addCleanup(client.transport.abortConnection)
        return client

    def head(self, method: str = "GET", path: str = "/", *lines: str) -> bytes:
        """A request's head to the preview; `lines` are fields."""
        host = f"Host: {TASK}-web.preview.localhost:{self.bridge.port}"
        return "\r\n".join([f"{method} {path} HTTP/1.1", host, *lines, "", ""]).encode("latin-1")

    async def ask(self, request: bytes, until: bytes = b"\r\n\r\n") -> tuple[Any, Spoken]:
        """A browser that has sent `request`, and the server's connection that has heard it."""
        browser = await self.browser()
        browser.transport.write(request)
        server = await self.server.connection()
        await server.until(until)
        return browser, server

    async def refused(self, request: bytes, status: int = 400) -> None:
        """The bridge itself refuses `request`, ends the connection, and no server hears of it."""
        browser = await self.browser()
        browser.transport.write(request)
        await browser.see(b"HTTP/1.1 %d " % status)
        browser.transport.loseWriteConnection()
        await browser.gone
        self.assertEqual(browser.data.count(b"HTTP/1.1 "), 1, request)
