"""The host's tunnels against the independent bridge: section 5 of docs/protocol.md, revision 1."""

from __future__ import annotations

import base64
import hashlib
import json
import os

from uaihost.test.integration.peer import Report
from uaihost.test.integration.rig import TASK, PeerTestCase
from uaihost.test.integration.upstreams import Script, Spoken, Web, refused_port, websocket_echo

HEAD = b"\r\n\r\n"


def body_of(close: Report) -> bytes:
    return base64.b64decode(close["base64"])


class Plain(PeerTestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.script = Script()
        await self.host(web=self.listen(Web()), script=self.listen(self.script))

    async def scripted(self, tunnel: str, **options: object) -> Spoken:
        """Open a tunnel to the scripted upstream and take its connection."""
        await self.peer.open(tunnel, TASK, "script", keep="body", **options)  # type: ignore[arg-type]
        spoken: Spoken = await self.within(20, self.script.connection())
        return spoken

    async def test_get(self) -> None:
        ack, close = await self.peer.fetch("t", TASK, "web", url="/hello")
        self.assertEqual((ack["ok"], ack["status"], ack["statusText"]), (True, 200, "OK"))
        headers = [(name.lower(), value) for name, value in ack["headers"]]
        self.assertEqual([v for n, v in headers if n == "set-cookie"], ["a=1", "b=2"])
        self.assertNotIn("transfer-encoding", dict(headers))
        self.assertNotIn("connection", dict(headers))
        self.assertEqual(body_of(close), b"hello\n")
        self.assertEqual(close["reason"], "upstream ended")

    async def test_head(self) -> None:
        """The length of the body that a GET would have, and no body."""
        ack, close = await self.peer.fetch("t", TASK, "web", url="/hello", method="HEAD")
        self.assertEqual({n.lower(): v for n, v in ack["headers"]}["content-length"], "6")
        self.assertEqual(close["bytes"], 0)

    async def test_not_found_is_upstreams_answer(self) -> None:
        ack, _ = await self.peer.fetch("t", TASK, "web", url="/nothing")
        self.assertEqual((ack["ok"], ack["status"]), (True, 404))

    async def upload(self, headers: list[tuple[str, str]], pieces: list[bytes]) -> Report:
        """POST the pieces; what the upstream says it got."""
        await self.peer.open("up", TASK, "web", method="POST", url="/digest", headers=headers, keep="body")
        for piece in pieces:
            await self.peer.send("up", piece)
        await self.peer.end("up")
        ack = await self.peer.expect("ack", tunnelId="up")
        self.assertEqual((ack["ok"], ack["status"]), (True, 200))
        found: Report = json.loads(body_of(await self.peer.expect("close", tunnelId="up")))
        sent = b"".join(pieces)
        self.assertEqual((found["bytes"], found["sha256"]), (len(sent), hashlib.sha256(sent).hexdigest()))
        return found

    async def test_upload_with_length(self) -> None:
        pieces = [os.urandom(70_000), b"", b"x", os.urandom(1)]
        length = str(sum(map(len, pieces)))
        found = await self.upload([("Host", "h"), ("Content-Length", length)], pieces)
        self.assertIn(["content-length", length], [[n.lower(), v] for n, v in found["headers"]])

    async def test_upload_without_length(self) -> None:
        """The bridge's framing is dropped; the body arrives in the host's own chunks."""
        headers = [("Host", "h"), ("Transfer-Encoding", "chunked")]
        await self.upload(headers, [os.urandom(size) for size in (1, 1000, 100_000)])

    async def test_request_headers(self) -> None:
        """Host is rewritten, hop-by-hop headers go, repeats stay, X-Forwarded-* are added."""
        headers = [
            ("Host", "task-web.preview.example:8789"),
            ("X-Twice", "one"),
            ("Connection", "keep-alive"),
            ("Keep-Alive", "timeout=5"),
            ("TE", "trailers"),
            ("Upgrade", "h2c"),
            ("Proxy-Authorization", "Basic x"),
            ("X-Twice", "two"),
            ("X-Forwarded-For", "192.0.2.7"),
        ]
        upstream = await self.scripted("t", url="/a?b=%20c", headers=headers)
        await self.peer.end("t")
        head = (await self.within(20, upstream.until(HEAD))).split(HEAD)[0].decode().split("\r\n")
        fields = [tuple(line.split(": ", 1)) for line in head[1:]]
        names = [name.lower() for name, _ in fields]
        values = {name.lower(): value for name, value in fields}
        self.assertEqual(head[0], "GET /a?b=%20c HTTP/1.1")
        self.assertEqual(values["host"].split(":")[0], "127.0.0.1")
        self.assertEqual([value for name, value in fields if name == "X-Twice"], ["one", "two"])
        for name in ("keep-alive", "te", "upgrade", "proxy-authorization"):
            self.assertNotIn(name, names)
        self.assertEqual(values["x-forwarded-host"], "task-web.preview.example:8789")
        self.assertIn("x-forwarded-proto", names)
        self.assertEqual([v for n, v in fields if n.lower() == "x-forwarded-for"], ["192.0.2.7"])

    async def test_response_head_as_it_came(self) -> None:
        """Order, case and repeats of the headers, and a reason of the upstream's own."""
        upstream = await self.scripted("t")
        await self.peer.end("t")
        await self.within(20, upstream.until(HEAD))
        upstream.transport.write(
            b"HTTP/1.1 418 Short And Stout\r\nx-B: 1\r\nX-a: 2\r\nConnection: close\r\nx-B: 3\r\n"
            b"Content-Length: 3\r\n\r\npot"
        )
        ack = await self.peer.expect("ack", tunnelId="t")
        self.assertEqual((ack["status"], ack["statusText"]), (418, "Short And Stout"))
        self.assertEqual(ack["headers"], [["x-B", "1"], ["X-a", "2"], ["x-B", "3"], ["Content-Length", "3"]])
        self.assertEqual(body_of(await self.peer.expect("close", tunnelId="t")), b"pot")

    async def test_body_until_the_end(self) -> None:
        """Without a length the body ends with the connection."""
        upstream = await self.scripted("t")
        await self.peer.end("t")
        await self.within(20, upstream.until(HEAD))
        upstream.transport.write(b"HTTP/1.0 200 OK\r\n\r\nfirst ")
        upstream.transport.write(b"second")
        upstream.transport.loseConnection()
        close = await self.peer.expect("close", tunnelId="t")
        self.assertEqual(body_of(close), b"first second")

    async def test_request_is_not_ended_early(self) -> None:
        """Without `requestEnd` the upstream sees no end of the body."""
        upstream = await self.scripted("t", method="POST", headers=[("Host", "h")])
        await self.peer.send("t", b"begin")
        await self.within(20, upstream.until(b"begin"))
        await self.sleep(0.5)
        self.assertNotIn(b"\r\n0\r\n\r\n", upstream.heard)
        await self.peer.end("t")
        await self.within(20, upstream.until(b"\r\n0\r\n\r\n"))

    async def test_early_answer(self) -> None:
        """An upstream that answers before the body is complete is heard."""
        upstream = await self.scripted("t", method="POST", headers=[("Host", "h"), ("Content-Length", "9")])
        await self.within(20, upstream.until(HEAD))
        upstream.transport.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        upstream.transport.loseConnection()
        self.assertEqual((await self.peer.expect("ack", tunnelId="t"))["status"], 413)
        await self.peer.expect("close", tunnelId="t")

    async def test_broken_answer(self) -> None:
        """Before the ack: 502; after it: a close with a reason, and no more bytes than came."""
        upstream = await self.scripted("early")
        await self.peer.end("early")
        await self.within(20, upstream.until(HEAD))
        upstream.transport.write(b"this is no HTTP\r\n\r\n")
        ack = await self.peer.expect("ack", tunnelId="early")
        self.assertEqual((ack["ok"], ack["status"]), (False, 502))
        self.assertTrue(ack["message"])

        upstream = await self.scripted("late")
        await self.peer.end("late")
        await self.within(20, upstream.until(HEAD))
        upstream.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await self.peer.expect("ack", tunnelId="late")
        upstream.transport.loseConnection()
        close = await self.peer.expect("close", tunnelId="late")
        self.assertEqual(body_of(close), b"half")
        self.assertNotEqual(close["reason"], "upstream ended")

    async def test_closed_by_the_bridge(self) -> None:
        """A close destroys the upstream and is answered by a close."""
        upstream = await self.scripted("t")
        await self.peer.end("t")
        await self.within(20, upstream.until(HEAD))
        await self.peer.close("t")
        await self.peer.expect("close", tunnelId="t")
        await self.within(20, upstream.lost)

    async def test_connection_is_reused(self) -> None:
        """Requests one after the other share an upstream connection."""
        for number in range(3):
            await self.peer.open(f"t{number}", TASK, "script", url=f"/{number}", keep="body")
            await self.peer.end(f"t{number}")
            if number == 0:
                upstream = await self.within(20, self.script.connection())
            await self.within(20, upstream.until(b"GET /%d HTTP/1.1\r\n" % number))
            upstream.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            self.assertEqual(body_of(await self.peer.expect("close", tunnelId=f"t{number}")), b"ok")

    async def test_many_at_once(self) -> None:
        for number in range(40):
            await self.peer.open(f"t{number}", TASK, "web", url="/hello", keep="body")
            await self.peer.end(f"t{number}")
        for number in range(40):
            self.assertEqual(body_of(await self.peer.expect("close", tunnelId=f"t{number}")), b"hello\n")


class Refused(PeerTestCase):
    async def test_nothing_there(self) -> None:
        """503 for a task, name or editor that does not exist, 502 where nothing listens; plain and raw."""
        await self.host(web=self.listen(Web()), gone=refused_port())
        cases: list[tuple[str, str | None, int]] = [
            ("no-such-task", "web", 503),
            (TASK, "no-such-name", 503),
            (TASK, None, 503),
            (TASK, "gone", 502),
        ]
        for number, (task, name, status) in enumerate(cases):
            for upgrade in (False, True):
                tunnel = f"t{number}{upgrade}"
                await self.peer.open(tunnel, task, name, upgrade=upgrade)
                ack = await self.peer.expect("ack", tunnelId=tunnel)
                self.assertEqual((ack["ok"], ack["status"]), (False, status))
                self.assertTrue(ack["message"])

    async def test_exposed_while_it_runs(self) -> None:
        """A task exposed after the start is reachable at once."""
        await self.host()
        await self.service.expose("later", [("web", self.listen(Web()))])
        _, close = await self.peer.fetch("t", "later", "web", url="/hello")
        self.assertEqual(body_of(close), b"hello\n")


class Raw(PeerTestCase):
    KEY = "dGhlIHNhbXBsZSBub25jZQ=="
    # RFC 6455, section 1.3: what the key above must be answered with.
    ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    UPGRADE = [
        ("Host", "task-web.preview.example"),
        ("Origin", "http://task-web.preview.example"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ]

    async def test_websocket_echo(self) -> None:
        """A WebSocket through a raw tunnel: handshake, a short message, one of 100 kB, a close."""
        await self.host(echo=self.listen(websocket_echo()))
        await self.peer.open("t", TASK, "echo", headers=self.UPGRADE, upgrade=True, keep="stream")
        ack = await self.peer.expect("ack", tunnelId="t")
        self.assertEqual((ack["ok"], ack["status"]), (True, 101))
        headers = {name.lower(): value for name, value in ack["headers"]}
        self.assertEqual(headers["sec-websocket-accept"], self.ACCEPT)
        self.assertEqual(headers["upgrade"].lower(), "websocket")
        # A mask of zeros leaves the payload as it is (RFC 6455, section 5.3).
        await self.peer.send("t", b"\x81\x85\0\0\0\0hello")
        self.assertEqual(await self.peer.received("t", 7), b"\x81\x05hello")
        noise = os.urandom(100_000)
        size = len(noise).to_bytes(8)
        await self.peer.send("t", b"\x82\xff" + size + bytes(4) + noise)
        self.assertEqual(await self.peer.received("t", 10 + len(noise)), b"\x82\x7f" + size + noise)
        await self.peer.send("t", b"\x88\x82\0\0\0\0\x03\xe8")
        await self.peer.received("t", 4)
        self.assertEqual((await self.peer.expect("close", tunnelId="t"))["reason"], "upstream closed")

    async def test_head_as_given(self) -> None:
        """Every header of the request, Host and Origin too, in order; bytes behind it follow the ack."""
        script = Script()
        await self.host(raw=self.listen(script))
        await self.peer.open("t", TASK, "raw", url="/w?x", headers=self.UPGRADE, upgrade=True, keep="stream")
        upstream = await self.within(20, script.connection())
        heard = await self.within(20, upstream.until(HEAD))
        lines = [f"{name}: {value}" for name, value in self.UPGRADE]
        self.assertEqual(heard.decode(), "\r\n".join(["GET /w?x HTTP/1.1", *lines, "", ""]))
        upstream.transport.write(
            b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nat once"
        )
        ack = await self.peer.expect("ack", tunnelId="t")
        self.assertEqual((ack["status"], ack["statusText"]), (101, "Switching"))
        self.assertEqual(ack["headers"], [["Upgrade", "x"], ["Connection", "Upgrade"]])
        self.assertEqual(await self.peer.received("t", 7), b"at once")
        await self.peer.send("t", b"\x00\xff any bytes")
        await self.within(20, upstream.until(b"\x00\xff any bytes"))

    async def test_no_http_answer(self) -> None:
        """A head without a status line becomes a 502; what follows it is passed on all the same."""
        script = Script()
        await self.host(raw=self.listen(script))
        await self.peer.open("t", TASK, "raw", headers=self.UPGRADE, upgrade=True, keep="stream")
        upstream = await self.within(20, script.connection())
        upstream.transport.write(b"SSH-2.0-something\r\n\r\nmore")
        ack = await self.peer.expect("ack", tunnelId="t")
        self.assertEqual((ack["status"], ack["statusText"]), (502, "Bad Gateway"))
        self.assertEqual(await self.peer.received("t", 4), b"more")

    async def test_closed_by_the_bridge(self) -> None:
        script = Script()
        await self.host(raw=self.listen(script))
        await self.peer.open("t", TASK, "raw", headers=self.UPGRADE, upgrade=True)
        upstream = await self.within(20, script.connection())
        upstream.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        await self.peer.expect("ack", tunnelId="t")
        await self.peer.close("t")
        await self.peer.expect("close", tunnelId="t")
        await self.within(20, upstream.lost)

    async def test_lost_link_closes_upstreams(self) -> None:
        """Nothing of the old connection's tunnels is heard on the new one."""
        script = Script()
        await self.host(raw=self.listen(script))
        await self.peer.open("t", TASK, "raw", headers=self.UPGRADE, upgrade=True)
        upstream = await self.within(20, script.connection())
        upstream.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        await self.peer.expect("ack", tunnelId="t")
        await self.peer.call("cut", reset=True)
        await self.within(20, upstream.lost)
        await self.peer.ready()
        self.assertEqual((await self.peer.command("c", "taskStatus", TASK))["ok"], True)
