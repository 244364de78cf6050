"""The link over real TCP and TLS on loopback."""

from __future__ import annotations

import socket as sockets
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import trustme
from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import KeyPair, PrivateCertificate
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from uaihost.link.endpoint import bridge_endpoint
from uaihost.link.link import Hooks, Link
from uaihost.link.outbound import Outbound
from uaihost.link.protocol import ServerSocketFactory
from uaihost.link.session import Greeting, Inbound, Session
from uaihost.link.socket import NOT_SENT_LOW_WATER, TRANSPORT_BUFFER, MessageSocket
from uaihost.test.link.ends import BridgeEnd, MemoryJournal, MemoryStore
from uaihost.wire.frames import Capabilities, EventFrame, HostCapabilities, TunnelData

reactor: Any = global_reactor

MIB = 1 << 20


class Forbidden(Protocol):
    """A web server that is no bridge."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


class LoopbackTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.bridges: list[BridgeEnd] = []
        self.data = 0
        self.connected: list[tuple[Session, Outbound]] = []
        self.fatal: list[str] = []
        self.store = MemoryStore()
        self.journal = MemoryJournal(self.store)
        self.port = 0
        self.listener: Any = None

    def opened(self, socket: MessageSocket) -> None:
        bridge = BridgeEnd()
        self.bridges.append(bridge)
        bridge.opened(socket)

    def listen(self, context: Any = None, factory: Factory | None = None) -> None:
        if factory is None:
            factory = ServerSocketFactory(reactor, self.opened, lambda socket, code, reason: None)
        if context is None:
            self.listener = reactor.listenTCP(self.port, factory, interface="127.0.0.1")
        else:
            self.listener = reactor.listenSSL(self.port, factory, context, interface="127.0.0.1")
        self.port = self.listener.getHost().port
        self.addCleanup(self.stop_listening)

    async def stop_listening(self) -> None:
        listener, self.listener = self.listener, None
        if listener is not None:
            await listener.stopListening()

    def start(self, url: str, ca_file: Path | None = None) -> Link:
        link = Link(
            reactor,
            bridge_endpoint(reactor, url, ca_file=ca_file),
            Greeting("T", "H", lambda: Capabilities(agentKinds=[], runtimes=[])),
            Inbound({}, self.received, lambda message: None, lambda command_id, why: None),
            journal=self.journal,
            store=self.store,
            random=Random(1),
            hooks=Hooks(
                connected=lambda session, outbound: self.connected.append((session, outbound)),
                fatal=self.fatal.append,
            ),
        )
        link.startService()
        self.addCleanup(self.end, link)
        return link

    async def end(self, link: Link) -> None:
        await link.stopService()
        # The bridges' ends of closed connections.
        await self.until(lambda: all(bridge.closes for bridge in self.bridges))

    def received(self, tunnel_id: str, data: bytes) -> None:
        self.data += len(data)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await deferLater(reactor, 0.005)

    def certificate(self, authority: trustme.CA, name: str) -> Any:
        leaf = authority.issue_cert(name)
        pem = leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes()
        return PrivateCertificate.fromCertificateAndKeyPair(
            PrivateCertificate.loadPEM(pem), KeyPair.load(leaf.private_key_pem.bytes(), 1)
        ).options()

    def ca_file(self, authority: trustme.CA) -> Path:
        path = Path(self.mktemp())
        path.write_bytes(authority.cert_pem.bytes())
        return path

    async def talk(self) -> None:
        """Frames and bulk in both directions."""
        await self.until(lambda: self.bridges and self.bridges[-1].said(HostCapabilities))
        bridge = self.bridges[-1]
        self.connected[-1][1].outlet("t").write(bytes(8 * MIB))
        for _ in range(64):
            bridge.send(TunnelData(tunnelId="t"))
            bridge.socket.send_message(bytes(MIB // 8), True, False)
        await self.until(lambda: self.data == 8 * MIB)
        await self.until(lambda: sum(map(len, bridge.binaries)) == 8 * MIB)
        self.journal.add(b"{}")
        await self.until(lambda: self.store.depth() == 0)

    async def test_ws(self) -> None:
        self.listen()
        self.start(f"ws://127.0.0.1:{self.port}/host")
        await self.talk()

    async def test_wss(self) -> None:
        authority = trustme.CA()
        self.listen(self.certificate(authority, "localhost"))
        self.start(f"wss://localhost:{self.port}/host", self.ca_file(authority))
        await self.talk()

    async def test_wss_to_an_address(self) -> None:
        authority = trustme.CA()
        self.listen(self.certificate(authority, "127.0.0.1"))
        self.start(f"wss://127.0.0.1:{self.port}/host", self.ca_file(authority))
        await self.talk()

    async def refused(self, link: Link, why: str) -> None:
        await self.until(lambda: link.state.name == "waiting")
        self.assertIn(why, link.state.reason)
        self.assertEqual(self.bridges, [])

    async def test_a_certificate_of_another_authority_is_refused(self) -> None:
        self.listen(self.certificate(trustme.CA(), "localhost"))
        link = self.start(f"wss://localhost:{self.port}/host", self.ca_file(trustme.CA()))
        await self.refused(link, "certificate verify failed")

    async def test_the_machines_authorities_do_not_vouch_for_an_unknown_one(self) -> None:
        self.listen(self.certificate(trustme.CA(), "localhost"))
        link = self.start(f"wss://localhost:{self.port}/host")
        await self.refused(link, "certificate verify failed")

    async def test_a_certificate_for_another_name_is_refused(self) -> None:
        authority = trustme.CA()
        self.listen(self.certificate(authority, "elsewhere.example"))
        link = self.start(f"wss://localhost:{self.port}/host", self.ca_file(authority))
        await self.refused(link, "certificate is for another name")

    async def test_tls_with_a_bridge_that_speaks_none_is_refused(self) -> None:
        self.listen(factory=Factory.forProtocol(Forbidden))
        link = self.start(f"wss://127.0.0.1:{self.port}/host", self.ca_file(trustme.CA()))
        await self.refused(link, "TLS with the bridge failed")

    async def test_a_server_that_answers_otherwise_is_refused(self) -> None:
        self.listen(factory=Factory.forProtocol(Forbidden))
        link = self.start(f"ws://127.0.0.1:{self.port}/host")
        await self.refused(link, "403")

    async def test_nobody_there(self) -> None:
        self.listen()
        await self.stop_listening()
        link = self.start(f"ws://127.0.0.1:{self.port}/host")
        await self.refused(link, "refused")

    async def test_a_rejection_ends_it(self) -> None:
        self.listen()
        link = self.start(f"ws://127.0.0.1:{self.port}/host")
        await self.until(lambda: self.bridges)
        self.bridges[0].socket.close(4001, "unknown token")
        await self.until(lambda: self.fatal)
        self.assertEqual((self.fatal, link.state.name), (["unknown token"], "fatal"))

    async def test_the_socket_is_tuned(self) -> None:
        self.listen()
        self.start(f"ws://127.0.0.1:{self.port}/host")
        await self.until(lambda: self.bridges and self.connected)
        for socket in (self.bridges[0].socket, self.connected[0][0]._socket):
            transport = socket.transport
            connection = transport.getHandle()
            self.assertEqual(transport.bufferSize, TRANSPORT_BUFFER)
            self.assertNotEqual(connection.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY), 0)
            self.assertEqual(connection.getsockopt(sockets.IPPROTO_TCP, 25), NOT_SENT_LOW_WATER)

    async def test_rows_are_sent_again_when_the_bridge_comes_back(self) -> None:
        self.listen()
        link = self.start(f"ws://127.0.0.1:{self.port}/host")
        await self.until(lambda: self.bridges)
        self.bridges[0].pongs = False
        self.journal.add(b'{"n":1}')
        await self.until(lambda: self.bridges[0].said(EventFrame))
        await self.stop_listening()
        self.bridges[0].socket.transport.abortConnection()
        await self.until(lambda: link.state.name == "waiting")
        self.journal.add(b'{"n":2}')
        self.listen()
        await self.until(lambda: self.store.depth() == 0)
        self.assertEqual(
            [frame.event for frame in self.bridges[1].said(EventFrame)],
            [{"seq": 1, "n": 1}, {"seq": 2, "n": 2}],
        )

    async def test_a_held_socket_stops_the_bridge_and_can_still_be_closed(self) -> None:
        self.listen()
        link = self.start(f"ws://127.0.0.1:{self.port}/host")
        await self.until(lambda: self.bridges and self.connected)
        bridge, (session, _) = self.bridges[0], self.connected[0]
        session.hold("slow upstream")
        outbound = Outbound(bridge.socket, reactor)
        # Who learns from the answers to its marks how much may be on the way.
        bridge.marked = outbound.marked  # type: ignore[method-assign]
        outlet = outbound.outlet("t")
        # Compressed, zeros would be too few to fill anything.
        outlet.hint(False)
        outlet.write(bytes(32 * MIB))
        await deferLater(reactor, 0.2)
        # What was on its way before the brake took hold: the kernel's buffers.
        self.assertGreater(outbound.total, 16 * MIB)
        self.assertEqual(self.data, 0)
        session.release("slow upstream")
        await self.until(lambda: self.data == 32 * MIB)
        session.hold("slow upstream")
        await self.end(link)
        self.assertEqual(bridge.closes, [(1001, "host shutting down")])

    async def test_a_control_frame_passes_bulk_on_a_slow_line(self) -> None:
        self.listen()
        self.start(f"ws://127.0.0.1:{self.port}/host")
        await self.until(lambda: self.bridges and self.connected)
        bridge, (session, outbound) = self.bridges[0], self.connected[0]
        # A bridge that reads in small gulps.
        bridge.socket.transport.bufferSize = 16 * 1024
        outlet = outbound.outlet("bulk")
        outlet.hint(False)
        outlet.write(bytes(32 * MIB))
        await self.until(lambda: bridge.binaries)
        before = len(bridge.frames)
        session.advertise()
        await self.until(lambda: len(bridge.said(HostCapabilities)) == 2)
        announced = [type(frame) for frame in bridge.frames[before:]].index(HostCapabilities)
        self.assertLess(sum(map(len, bridge.binaries)), 30 * MIB)
        self.assertLess(announced, 200)
