"""A real bridge, a scripted host over a real WebSocket, and browsers as plain TCP and WebSocket clients."""

from __future__ import annotations

import gc
import hashlib
import os
from pathlib import Path
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
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from uaihost.bridge.service import Bridge, BridgeSettings, make_bridge
from uaihost.bridge.tunnels import HIGH_WATER
from uaihost.errors import HostError
from uaihost.test.integration.bridge_ends import MIB, Client, Pipe, Pump
from uaihost.test.integration.bridge_host import PAGE, TOKEN, ScriptedHost, Upstream
from uaihost.test.support import short_folder

reactor: Any = _reactor


class BridgeCase(TestCase):
    """A bridge and a host of the kind `kind`, which serves one task with one preview."""

    timeout = 60
    kind: type[ScriptedHost] = ScriptedHost

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = short_folder(self)
        self.bridge = await self.start(0)
        self.host = self.kind(reactor, self.bridge.port)
        self.addCleanup(self.host.leave)
        await self.host.connect()
        self.host.event("task.status", "shop", status="running")
        previews = [{"name": "web", "containerPort": 3000, "hostPort": 1}]
        self.host.event("ports.changed", "shop", previewPorts=previews)
        self.host.send(kind="ping", ts=2)
        await self.host.heard(lambda frame: frame == {"kind": "pong", "ts": 2})

    async def start(self, port: int) -> Bridge:
        bridge = make_bridge(reactor, BridgeSettings(port, "127.0.0.1", self.folder, (TOKEN,), "key"))
        bridge.startService()
        self.addCleanup(bridge.stopService)
        await bridge.started()
        return bridge

    async def browser(self, kind: type[Client] = Client) -> Any:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.bridge.port)
        client: Any = await endpoint.connect(Factory.forProtocol(kind))
        self.addCleanup(client.transport.abortConnection)
        return client

    def head(self, method: str = "GET", path: str = "/", **headers: str) -> bytes:
        lines = {"Host": f"shop-web.preview.localhost:{self.bridge.port}", **headers}
        text = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
        return f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode()

    def serve(self, upstream: type[Upstream]) -> list[Any]:
        """Tunnels lead to upstreams of this kind; the list of those that were made."""
        made: list[Any] = []

        def make(host: ScriptedHost, opened: dict[str, Any]) -> Upstream:
            new = upstream(host, opened)
            made.append(new)
            return new

        self.host.tunnel = make
        return made


class RequestTests(BridgeCase):
    async def test_a_page(self) -> None:
        browser = await self.browser()
        browser.transport.write(self.head())
        await browser.see(PAGE)
        self.assertTrue(browser.data.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"))
        browser.data.clear()
        browser.transport.write(self.head(path="/again"))
        await browser.see(PAGE)

    async def test_an_upload(self) -> None:
        class Count(Upstream):
            def ended(self) -> None:
                digest = hashlib.sha256(self.body).hexdigest().encode()
                self.ack(200, [["Content-Length", str(len(digest))]])
                self.send(digest)
                self.close()

        self.serve(Count)
        body = os.urandom(3 * MIB + 17)
        browser = await self.browser()
        browser.transport.write(self.head("POST", Content_Length=str(len(body))) + body)
        await browser.see(hashlib.sha256(body).hexdigest().encode())

    async def test_a_chunked_upload_and_a_chunked_answer(self) -> None:
        class Echo(Upstream):
            def start(self) -> None:
                self.ack(200, [])

            def data(self, data: bytes) -> None:
                self.send(data)

            def ended(self) -> None:
                self.close()

        self.serve(Echo)
        browser = await self.browser()
        browser.transport.write(self.head("POST", Transfer_Encoding="chunked"))
        browser.transport.write(b"5\r\nhello\r\n")
        await browser.see(b"5\r\nhello\r\n")
        browser.transport.write(b"6\r\n world\r\n0\r\n\r\n")
        await browser.see(b"6\r\n world\r\n0\r\n\r\n")

    async def test_a_refusal_of_the_host_is_a_page(self) -> None:
        class Refuse(Upstream):
            def start(self) -> None:
                self.refuse(503, "this task has no preview web")

        self.serve(Refuse)
        browser = await self.browser()
        browser.transport.write(self.head(Accept="text/html"))
        await browser.gone
        self.assertIn(b"HTTP/1.1 503 Service Unavailable", browser.data)
        self.assertIn(b"This task has no preview web.", browser.data)

    async def test_a_browser_that_leaves_is_told_to_the_host(self) -> None:
        made = self.serve(Upstream)
        browser = await self.browser()
        browser.transport.write(self.head("POST", Content_Length="10"))
        await self.host.heard(lambda frame: frame["kind"] == "tunnel.open")
        browser.transport.abortConnection()
        await self.host.heard(lambda frame: frame["kind"] == "tunnel.close")
        self.assertTrue(made[0].is_lost)

    async def test_many_at_once(self) -> None:
        browsers = [await self.browser() for _ in range(30)]
        for browser in browsers:
            browser.transport.write(self.head())
        for browser in browsers:
            await browser.see(PAGE)


class _Echoes(WebSocketClientProtocol):
    def onOpen(self) -> None:
        self.factory.opened.callback(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.factory.heard.append(payload)
        if len(self.factory.heard) == 2:
            self.factory.done.callback(None)


class _Server(WebSocketServerProtocol):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


class UpgradeTests(BridgeCase):
    async def test_a_websocket_through_a_raw_tunnel(self) -> None:
        server: Any = WebSocketServerFactory()
        server.protocol = _Server
        server.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
        port = reactor.listenTCP(0, server, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.patch(Pipe, "number", port.getHost().port)
        made = self.serve(Pipe)
        address = f"ws://shop-web.preview.localhost:{self.bridge.port}/live"
        factory: Any = WebSocketClientFactory(address)
        factory.protocol = _Echoes
        factory.setProtocolOptions(openHandshakeTimeout=0, closeHandshakeTimeout=0)
        factory.opened, factory.done, factory.heard = Deferred(), Deferred(), []
        await TCP4ClientEndpoint(reactor, "127.0.0.1", self.bridge.port).connect(factory)
        socket = await factory.opened
        large = os.urandom(300_000)
        socket.sendMessage(b"hello")
        socket.sendMessage(large, True)
        await factory.done
        self.assertEqual(factory.heard, [b"hello", large])
        self.assertTrue(made[0].opened["upgrade"])
        socket.transport.abortConnection()
        await self.host.heard(lambda frame: frame["kind"] == "tunnel.close")
        await made[0].pipe.gone


class DownloadTests(BridgeCase):
    async def test_20_MB(self) -> None:
        made = self.serve(Pump)
        browser = await self.browser()
        browser.transport.write(self.head(Connection="close"))
        await browser.gone
        _, body = bytes(browser.data).split(b"\r\n\r\n", 1)
        self.assertEqual(len(body), Pump.size)
        self.assertEqual(hashlib.sha256(body).digest(), made[0].digest.digest())

    async def test_a_slow_browser_costs_no_more_than_its_bound(self) -> None:
        class Flood(Pump):
            size = 256 * MIB

        made = self.serve(Flood)
        browser = await self.browser()
        browser.keep = False
        browser.transport.pauseProducing()
        gc.collect()
        before = memory()
        browser.transport.write(self.head())
        last = -1
        # Until the host cannot send any more: every buffer on the way is full.
        while not made or made[0].left != last:
            last = made[0].left if made else -1
            await deferLater(reactor, 0.3, lambda: None)
        sent = Flood.size - made[0].left
        self.assertGreater(made[0].left, 200 * MIB)
        self.assertGreater(sent, HIGH_WATER)
        # Both ends live in this process: the bridge's bound, and twice that for sockets and pieces.
        self.assertLess(memory() - before, 3 * HIGH_WATER + 16 * MIB)
        # It goes on as soon as it reads.
        browser.transport.resumeProducing()
        while browser.size < sent + 8 * MIB:
            await deferLater(reactor, 0.05, lambda: None)
        made[0].is_lost = True

    async def test_a_stalled_browser_stops_others_only_for_a_while(self) -> None:
        self.patch_stall(0.5)
        made = self.serve(Pump)
        stalled = await self.browser()
        stalled.transport.pauseProducing()
        Pump.size, before = 64 * MIB, Pump.size
        self.addCleanup(setattr, Pump, "size", before)
        stalled.transport.write(self.head())
        await self.host.heard(lambda frame: frame["kind"] == "tunnel.close")
        self.assertEqual(len(made), 1)
        self.host.tunnel = Upstream
        self.host.socket.unregisterProducer()
        other = await self.browser()
        other.transport.write(self.head())
        await other.see(PAGE)

    def patch_stall(self, seconds: float) -> None:
        from uaihost.bridge import tunnels

        self.patch(tunnels, "STALL_LIMIT", seconds)

    async def test_a_host_lost_in_the_middle_is_seen_by_the_browser(self) -> None:
        class Half(Upstream):
            def ended(self) -> None:
                self.ack(
                    200, [["Content-Length", "1000"]] if "length" in self.opened["reqLine"]["url"] else []
                )
                self.send(b"x" * 100)

        self.serve(Half)
        for path in ("/length", "/chunked"):
            if self.host.socket is None:
                await self.host.connect()
            browser = await self.browser()
            browser.transport.write(self.head(path=path))
            await browser.see(b"x" * 100)
            self.host.drop()
            reason = await browser.gone
            self.assertNotIn(b"\r\n0\r\n", browser.data)
            self.assertIs(reason, ConnectionLost, path)

    async def test_without_its_host_a_task_says_so(self) -> None:
        await self.host.leave()
        browser = await self.browser()
        browser.transport.write(self.head())
        await browser.gone
        self.assertIn(b"HTTP/1.1 503 ", browser.data)
        self.assertIn(b"not connected", browser.data)


class ServiceTests(BridgeCase):
    async def test_a_port_that_is_taken_is_told_and_changes_nothing(self) -> None:
        other = short_folder(self)
        second = make_bridge(
            reactor, BridgeSettings(self.bridge.port, "127.0.0.1", other, (TOKEN,), "key"), self.fatal
        )
        second.startService()
        self.addCleanup(second.stopService)
        with self.assertRaises(HostError) as caught:
            await second.started()
        self.assertIn(str(self.bridge.port), caught.exception.message)
        self.assertEqual(list(Path(other).iterdir()), [])
        self.assertEqual(len(self.told), 1)

    told: list[str] = []

    def fatal(self, reason: str) -> None:
        self.told = [reason]

    async def test_the_port_is_in_its_file_while_it_runs(self) -> None:
        file = self.folder / "bridge.port"
        self.assertEqual(int(file.read_text()), self.bridge.port)
        await self.bridge.stopService()
        self.assertFalse(file.exists())
        await self.host.gone
        self.assertEqual(self.host.close, (1001, "bridge shutting down"))

    async def test_after_a_restart_tasks_are_routed_as_before(self) -> None:
        port = self.bridge.port
        await self.bridge.stopService()
        await self.host.gone
        self.bridge = await self.start(port)
        await self.host.connect()
        browser = await self.browser()
        browser.transport.write(self.head())
        await browser.see(PAGE)

    async def test_a_wrong_token_is_closed_with_4001(self) -> None:
        stranger = ScriptedHost(reactor, self.bridge.port, "host-2", "wrong")
        await stranger.dial()
        stranger.send(kind="auth", token="wrong", hostId="host-2")
        await stranger.gone
        assert stranger.close is not None
        self.assertEqual(stranger.close[0], 4001)


def memory() -> int:
    """Resident bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")
