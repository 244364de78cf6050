"""Memory of the host's service while 1 GiB goes through one tunnel and the far side is slow.

Bounded memory of section 5 of docs/protocol.md. Takes about a minute a test.
"""

from __future__ import annotations

from twisted.internet.protocol import Factory

from uaihost.test.integration.rig import TASK, PeerTestCase
from uaihost.test.integration.upstreams import Sink, Source, Web
from uaihost.wire import mux

GIB = 1 << 30
MIB = 1 << 20

# How much the service may grow while the bytes pass.
GROWTH = 32 * MIB


class One(Factory):
    """Serves every connection with the same protocol object; there is one connection."""

    noisy = False

    def __init__(self, protocol: Source | Sink) -> None:
        self.only = protocol

    def buildProtocol(self, addr: object) -> Source | Sink:
        return self.only


class Memory(PeerTestCase):
    timeout = 400

    async def warm(self) -> int:
        """Resident bytes after a first small request, when all code is loaded."""
        await self.peer.fetch("warm", TASK, "web", url="/hello")
        return self.service.memory()

    async def test_slow_reader(self) -> None:
        """A bridge that reads slowly stops the upstream; other frames still pass once it reads."""
        source = Source(GIB)
        await self.host(web=self.listen(Web()), source=self.listen(One(source)))
        before = await self.warm()
        await self.peer.open("t", TASK, "source")
        await self.peer.end("t")
        await self.peer.expect("ack", tunnelId="t")
        await self.peer.call("pause")
        await self.sleep(1)
        stuck = source.sent
        await self.sleep(3)
        self.assertEqual(source.sent, stuck)
        self.assertLess(stuck, GIB)
        self.assertLess(self.service.memory() - before, GROWTH)
        await self.peer.call("sip", on=40, off=20)
        close = await self.peer.expect("close", tunnelId="t", timeout=300)
        self.assertEqual((close["bytes"], close["sha256"]), (GIB, source.hash.hexdigest()))
        self.assertLess(self.service.memory("VmHWM") - before, GROWTH)

    async def test_slow_upstream(self) -> None:
        """An upstream that reads slowly stops the bridge's bytes; nothing is lost."""
        sink = Sink(GIB)
        await self.host(web=self.listen(Web()), sink=self.listen(One(sink)))
        before = await self.warm()
        headers = [("Host", "h"), ("Content-Length", str(GIB))]
        await self.peer.open("t", TASK, "sink", method="PUT", headers=headers)
        await self.eventually(lambda: sink.got >= 0, "no request")
        sink.transport.pauseProducing()
        flooded = self.peer.call("flood", tunnelId="t", bytes=GIB, size=64 << 10)
        await self.sleep(4)
        self.assertLess(self.service.memory() - before, GROWTH)
        sink.transport.resumeProducing()
        for _ in range(10):
            await self.sleep(0.2)
            sink.transport.pauseProducing()
            await self.sleep(0.2)
            sink.transport.resumeProducing()
        digest = (await flooded)["sha256"]
        await self.peer.end("t")
        ack = await self.peer.expect("ack", tunnelId="t", timeout=120)
        self.assertEqual((ack["ok"], ack["status"]), (True, 204))
        self.assertEqual((sink.got, sink.hash.hexdigest()), (GIB, digest))
        self.assertLess(self.service.memory("VmHWM") - before, GROWTH)

    async def test_by_mux_1(self) -> None:
        """As both of the above, at once: a reader and an upstream that take nothing for a while."""
        await self.peer.call("policy", features=[mux.FEATURE])
        source, sink = Source(GIB), Sink(GIB)
        listening = {"source": self.listen(One(source)), "sink": self.listen(One(sink))}
        await self.host(web=self.listen(Web()), **listening)
        before = await self.warm()
        down = await self.mux_open("source", "GET", [("Host", "h")], whole=True, reading=False)
        up = await self.mux_open("sink", "PUT", [("Host", "h"), ("Content-Length", str(GIB))])
        await self.eventually(lambda: sink.got >= 0, "no request")
        sink.transport.pauseProducing()
        flooded = self.peer.call("muxFlood", tunnel=up, bytes=GIB, size=64 << 10)
        await self.sleep(3)
        self.assertLess(source.sent, GIB)
        self.assertLess(self.service.memory() - before, GROWTH)
        # Each was stopped by its own window: others pass.
        await self.peer.fetch("other", TASK, "web", url="/hello")
        await self.peer.call("muxRead", tunnel=down, reading=True)
        sink.transport.resumeProducing()
        digest = (await flooded)["sha256"]
        await self.peer.call("muxEnd", tunnel=up)
        ended = await self.peer.expect("end", tunnel=down, timeout=300)
        self.assertEqual((ended["bytes"], ended["sha256"]), (GIB, source.hash.hexdigest()))
        await self.peer.expect("end", tunnel=up, timeout=120)
        self.assertEqual((sink.got, sink.hash.hexdigest()), (GIB, digest))
        self.assertLess(self.service.memory("VmHWM") - before, GROWTH)

    async def mux_open(self, name: str, method: str, headers: list[tuple[str, str]], **options: bool) -> int:
        line = {"method": method, "url": "/", "headers": headers}
        fields = {"target": "preview", "taskId": TASK, "name": name, "reqLine": line, "upgrade": False}
        return int((await self.peer.call("muxOpen", fields=fields, **options))["tunnel"])
