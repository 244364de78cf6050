"""The host's mux.1 against the independent bridge: docs/protocol.md, "mux.1"."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.utils import getProcessOutputAndValue
from zope.interface import implementer

from uaihost.test.integration.node import node
from uaihost.test.integration.peer import SOURCE, Report
from uaihost.test.integration.rig import TASK, PeerTestCase
from uaihost.test.integration.upstreams import Script, Spoken, Web
from uaihost.wire import mux

HEAD = b"\r\n\r\n"
MIB = 1 << 20

# The test vectors of the document: its frame in words, and its bytes.
VECTORS = {
    "creditFrame(0, 65536)": "06 00 00 04 00 00 00 00 00 01 00 00",
    "frame(3, 1, Buffer.from('hello'))": "03 00 00 05 00 00 00 01 68 65 6c 6c 6f",
    "frame(4, 1)": "04 00 00 00 00 00 00 01",
    "jsonFrame(4, 258, [['Digest', 'x']])": (
        "04 00 00 10 00 00 01 02 5b 5b 22 44 69 67 65 73 74 22 2c 22 78 22 5d 5d"
    ),
    "resetFrame(4294967295, 1, 'gone')": "05 00 00 06 ff ff ff ff 00 01 67 6f 6e 65",
    "jsonFrame(2, 1, {ok: true, status: 204, statusText: 'No Content', headers: []})": (
        "02 00 00 3f 00 00 00 01 7b 22 6f 6b 22 3a 74 72 75 65 2c 22 73 74 61 74 75 73 22 3a 32 30 34 2c 22 "
        "73 74 61 74 75 73 54 65 78 74 22 3a 22 4e 6f 20 43 6f 6e 74 65 6e 74 22 2c 22 68 65 61 64 65 72 73 "
        "22 3a 5b 5d 7d"
    ),
}


@implementer(IHalfCloseableProtocol)
class HalfSpoken(Spoken):
    """A connection that knows half-closed ones; `ended` fires when the other end closed its own."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self.ended: Deferred[None] = Deferred()

    def readConnectionLost(self) -> None:
        self.ended.callback(None)

    def writeConnectionLost(self) -> None:
        """As was asked."""


class HalfScript(Script):
    def buildProtocol(self, addr: Any) -> Spoken:
        return HalfSpoken(self)


class MuxPeerCase(PeerTestCase):
    kind: type[Script] = Script

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.script = self.kind()
        await self.peer.call("policy", features=[mux.FEATURE])
        await self.host(web=self.listen(Web()), script=self.listen(self.script))

    async def open(
        self,
        name: str,
        url: str = "/",
        *,
        method: str = "GET",
        headers: list[tuple[str, str]] | None = None,
        upgrade: bool = False,
        **options: Any,
    ) -> int:
        line = {"method": method, "url": url, "headers": headers or [("Host", "preview.example")]}
        fields = {"target": "preview", "taskId": TASK, "name": name, "reqLine": line, "upgrade": upgrade}
        opened = await self.peer.call("muxOpen", fields=fields, **options)
        return int(opened["tunnel"])

    async def scripted(self, **options: Any) -> tuple[int, Spoken]:
        """A tunnel to the scripted upstream, and that one's connection."""
        tunnel = await self.open("script", keep="body", **options)
        return tunnel, await self.within(20, self.script.connection())

    async def send(self, tunnel: int, data: bytes, force: bool = False) -> None:
        await self.peer.call("muxData", tunnel=tunnel, base64=base64.b64encode(data).decode(), force=force)

    async def ended(self, tunnel: int) -> Report:
        return await self.peer.expect("end", tunnel=tunnel)


def body_of(report: Report) -> bytes:
    return base64.b64decode(report["base64"])


class FrameTests(PeerTestCase):
    async def test_the_vectors_of_the_document(self) -> None:
        calls = ", ".join(f"made.{call}" for call in VECTORS)
        shown = f"console.log([{calls}].map((frame) => frame.toString('hex')).join())"
        program = f"import * as made from './frames.mjs'; {shown}"
        words = [node(), "--input-type=module", "-e", program]
        path = str(SOURCE)
        found, _, status = await getProcessOutputAndValue(words[0], words[1:], os.environ, path)
        self.assertEqual(status, 0)
        wanted = [bytes.fromhex(vector).hex() for vector in VECTORS.values()]
        self.assertEqual(found.decode().strip().split(","), wanted)


class RequestTests(MuxPeerCase):
    async def test_a_request_without_a_body(self) -> None:
        tunnel = await self.open("web", "/hello", whole=True, keep="body")
        head = (await self.peer.expect("head", tunnel=tunnel))["head"]
        self.assertEqual((head["ok"], head["status"], head["statusText"]), (True, 200, "OK"))
        end = await self.ended(tunnel)
        self.assertEqual((body_of(end), end["trailers"]), (b"hello\n", []))
        state = await self.peer.call("muxTunnel", tunnel=tunnel)
        self.assertTrue(state["over"])

    async def test_uploads_of_every_size(self) -> None:
        for size in (0, 1, mux.TUNNEL_WINDOW, mux.TUNNEL_WINDOW + 1, 5 * MIB + 3):
            headers = [("Host", "h"), ("Content-Length", str(size))]
            tunnel = await self.open("web", "/digest", method="POST", headers=headers, keep="body")
            sent = await self.peer.call("muxFlood", tunnel=tunnel, bytes=size, size=50_000)
            await self.peer.call("muxEnd", tunnel=tunnel)
            found = json.loads(body_of(await self.ended(tunnel)))
            self.assertEqual((found["bytes"], found["sha256"]), (size, sent["sha256"]))

    async def test_trailers_and_interim_answers(self) -> None:
        tunnel, upstream = await self.scripted(whole=True)
        await self.within(20, upstream.until(HEAD))
        upstream.transport.write(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nDigest: x\r\n\r\n"
        )
        interim = await self.peer.expect("head", tunnel=tunnel)
        self.assertEqual(
            (interim["head"]["status"], interim["head"]["headers"]), (103, [["Link", "</a.css>"]])
        )
        self.assertEqual((await self.peer.expect("head", tunnel=tunnel))["head"]["status"], 200)
        end = await self.ended(tunnel)
        self.assertEqual((body_of(end), end["trailers"]), (b"body", [["Digest", "x"]]))

    async def test_an_early_answer(self) -> None:
        headers = [("Host", "h"), ("Content-Length", str(100 * MIB))]
        tunnel, upstream = await self.scripted(method="POST", headers=headers)
        await self.send(tunnel, b"a part")
        await self.within(20, upstream.until(b"a part"))
        upstream.transport.write(
            b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge"
        )
        upstream.transport.loseConnection()
        self.assertEqual((await self.peer.expect("head", tunnel=tunnel))["head"]["status"], 413)
        self.assertEqual(body_of(await self.ended(tunnel)), b"large")
        self.assertEqual((await self.peer.expect("reset", tunnel=tunnel))["code"], mux.NOT_NEEDED)

    async def test_an_upload_that_is_broken_off(self) -> None:
        headers = [("Host", "h"), ("Content-Length", "1000")]
        tunnel, upstream = await self.scripted(method="POST", headers=headers)
        await self.send(tunnel, b"a part")
        await self.within(20, upstream.until(b"a part"))
        await self.peer.call("muxReset", tunnel=tunnel, code=mux.CANCELLED, reason="gone")
        await self.within(20, upstream.lost)

    async def test_a_response_that_is_cut_short(self) -> None:
        tunnel, upstream = await self.scripted(whole=True)
        await self.within(20, upstream.until(HEAD))
        upstream.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart")
        upstream.transport.loseConnection()
        reset = await self.peer.expect("reset", tunnel=tunnel)
        self.assertEqual((reset["code"], body_of(reset)), (mux.FAILED, b"part"))

    async def test_refusals(self) -> None:
        tunnel = await self.open("nothing", whole=True)
        head = (await self.peer.expect("head", tunnel=tunnel))["head"]
        self.assertEqual((head["ok"], head["status"]), (False, 503))
        self.assertTrue((await self.peer.call("muxTunnel", tunnel=tunnel))["over"])

    async def test_tunnels_of_revision_1_beside(self) -> None:
        tunnel = await self.open("web", "/hello", whole=True, keep="body")
        _, close = await self.peer.fetch("t", TASK, "web", url="/hello")
        self.assertEqual((body_of(close), close["reason"]), (b"hello\n", "upstream ended"))
        self.assertEqual(body_of(await self.ended(tunnel)), b"hello\n")


class UpgradeTests(MuxPeerCase):
    kind = HalfScript

    async def pipe(self) -> tuple[int, Any]:
        headers = [("Host", "h"), ("Connection", "Upgrade"), ("Upgrade", "echo")]
        tunnel, upstream = await self.scripted(headers=headers, upgrade=True)
        await self.within(20, upstream.until(HEAD))
        upstream.transport.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\nearly")
        self.assertEqual((await self.peer.expect("head", tunnel=tunnel))["head"]["status"], 101)
        return tunnel, upstream

    async def test_the_upstreams_half_ends_first(self) -> None:
        tunnel, upstream = await self.pipe()
        upstream.transport.loseWriteConnection()
        self.assertEqual(body_of(await self.ended(tunnel)), b"early")
        await self.send(tunnel, b"still here")
        await self.within(20, upstream.until(b"still here"))
        await self.peer.call("muxEnd", tunnel=tunnel)
        self.assertTrue((await self.peer.call("muxTunnel", tunnel=tunnel))["over"])
        await self.within(20, upstream.ended)

    async def test_the_bridges_half_ends_first(self) -> None:
        tunnel, upstream = await self.pipe()
        await self.send(tunnel, b"last words")
        await self.peer.call("muxEnd", tunnel=tunnel)
        await self.within(20, upstream.until(b"last words"))
        await self.within(20, upstream.ended)
        upstream.transport.write(b", and an answer")
        upstream.transport.loseConnection()
        self.assertEqual(body_of(await self.ended(tunnel)), b"early, and an answer")


class FlowTests(MuxPeerCase):
    async def test_a_reader_that_does_not_read_stops_its_own_tunnel_only(self) -> None:
        stuck, upstream = await self.scripted(whole=True, reading=False)
        await self.within(20, upstream.until(HEAD))
        body = os.urandom(MIB)
        upstream.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await self.peer.expect("head", tunnel=stuck)
        await self.sleep(0.3)
        self.assertEqual((await self.peer.call("muxTunnel", tunnel=stuck))["waiting"], mux.TUNNEL_WINDOW)
        tunnel = await self.open("web", "/hello", whole=True, keep="body")
        self.assertEqual(body_of(await self.ended(tunnel)), b"hello\n")
        await self.peer.call("muxRead", tunnel=stuck, reading=True)
        self.assertEqual(body_of(await self.ended(stuck)), body)

    async def test_without_the_links_credit_no_more_than_its_window_is_sent(self) -> None:
        await self.peer.call("muxLink", giving=False)
        tunnel, upstream = await self.scripted(whole=True)
        await self.within(20, upstream.until(HEAD))
        body = os.urandom(3 * MIB)
        upstream.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        while (await self.peer.call("muxTunnel", tunnel=tunnel))["bytes"] < mux.LINK_WINDOW:
            await self.sleep(0.05)
        await self.sleep(0.3)
        self.assertEqual((await self.peer.call("muxTunnel", tunnel=tunnel))["bytes"], mux.LINK_WINDOW)
        # What needs no credit goes on.
        self.assertEqual((await self.peer.command("c", "taskStatus", "nobody"))["ok"], False)
        await self.peer.call("muxLink", giving=True)
        self.assertEqual(hashlib.sha256(body).hexdigest(), (await self.ended(tunnel))["sha256"])

    async def test_an_upload_waits_for_its_reader(self) -> None:
        headers = [("Host", "h"), ("Content-Length", str(8 * MIB))]
        tunnel, upstream = await self.scripted(method="POST", headers=headers)
        upstream.transport.pauseProducing()
        sent = self.peer.call("muxFlood", tunnel=tunnel, bytes=8 * MIB, size=60_000)
        other = await self.open("web", "/hello", whole=True, keep="body")
        self.assertEqual(body_of(await self.ended(other)), b"hello\n")
        upstream.transport.resumeProducing()
        digest = (await sent)["sha256"]
        await self.peer.call("muxEnd", tunnel=tunnel)
        while len(upstream.heard.partition(HEAD)[2]) < 8 * MIB:
            await self.sleep(0.05)
        self.assertEqual(hashlib.sha256(upstream.heard.partition(HEAD)[2]).hexdigest(), digest)


class BrokenTests(MuxPeerCase):
    async def answered(self) -> int:
        """A tunnel whose upstream has answered, and takes and sends more."""
        headers = [("Host", "h"), ("Content-Length", str(100 * MIB))]
        tunnel, upstream = await self.scripted(method="POST", headers=headers)
        await self.send(tunnel, b"begin")
        await self.within(20, upstream.until(b"begin"))
        upstream.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart")
        await self.peer.expect("head", tunnel=tunnel)
        return tunnel

    async def test_an_upload_beyond_its_window_is_reset(self) -> None:
        tunnel = await self.answered()
        await self.send(tunnel, bytes(MIB // 2), force=True)
        self.assertEqual((await self.peer.expect("reset", tunnel=tunnel))["code"], mux.WINDOW_EXCEEDED)

    async def test_frames_that_cannot_be_read_or_are_out_of_turn_reset_their_tunnel(self) -> None:
        for kind, payload in ((mux.CREDIT, b"abc"), (mux.HEAD, b"{}"), (mux.DATA, b""), (mux.END, b"[]")):
            tunnel = await self.answered()
            await self.frame(kind, tunnel, payload)
            reset = await self.peer.expect("reset", tunnel=tunnel)
            self.assertEqual(reset["code"], mux.BAD_FRAME, kind)
        await self.frame(mux.OPEN, tunnel + 1, b"{")
        await self.frame(99, tunnel + 1, b"of a later revision")
        self.assertEqual((await self.peer.command("c", "taskStatus", "nobody"))["ok"], False)

    async def test_what_cannot_go_on_is_closed_with_4002(self) -> None:
        line = {"method": "GET", "url": "/", "headers": []}
        place = {"target": "preview", "taskId": TASK, "name": "web", "upgrade": False, "reqLine": line}
        opening = json.dumps(place).encode()
        cut = base64.b64encode(b"\x03\x00\x00").decode()
        await self.open("web", "/hello", whole=True)
        await self.frame(mux.OPEN, 1, opening)
        await self.closed_for_it()
        await self.peer.call("binary", base64=cut)
        await self.closed_for_it()
        for _ in range(2):
            await self.frame(mux.CREDIT, 0, mux.MAX_WINDOW.to_bytes(4, "big"))
        await self.closed_for_it()

    async def frame(self, kind: int, tunnel: int, payload: bytes) -> None:
        await self.peer.call("muxFrame", type=kind, tunnel=tunnel, base64=base64.b64encode(payload).decode())

    async def closed_for_it(self) -> None:
        self.assertEqual((await self.peer.expect("disconnected"))["code"], 4002)
        await self.peer.ready()
