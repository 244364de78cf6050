"""HTTP through the whole chain as it was meant: by mux.1, and again by revision 1."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any

from uaihost.test.integration.http_chain import ChainCase

LENGTH_5 = b"Content-Length: 5\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

# Requests that two readers could read differently, by what is wrong; %s is the Host line.
SMUGGLED: dict[str, tuple[bytes, int]] = {
    "a length and a coding": (b"POST / HTTP/1.1\r\n%s" + LENGTH_5 + CHUNKED + b"\r\n0\r\n\r\n", 400),
    "a coding and a length": (b"POST / HTTP/1.1\r\n%s" + CHUNKED + LENGTH_5 + b"\r\n0\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\n%s" + LENGTH_5 + b"Content-Length: 6\r\n\r\nabcdef", 400),
    "+5": (b"POST / HTTP/1.1\r\n%sContent-Length: +5\r\n\r\nabcde", 400),
    "0x5": (b"POST / HTTP/1.1\r\n%sContent-Length: 0x5\r\n\r\nabcde", 400),
    "chunked, identity": (b"POST / HTTP/1.1\r\n%sTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501),
    "xchunked": (b"POST / HTTP/1.1\r\n%sTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "chunked twice": (b"POST / HTTP/1.1\r\n%s" + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n", 501),
    "chunked by HTTP/1.0": (b"POST / HTTP/1.0\r\n%s" + CHUNKED + b"\r\n0\r\n\r\n", 400),
    "a bare LF": (b"GET / HTTP/1.1\r\n%sA: b\nC: d\r\n\r\n", 400),
    "bare LFs alone": (b"GET / HTTP/1.1\n%s\n", 400),
    "a bare LF as the end": (b"GET / HTTP/1.1\r\n%s\n", 400),
    "a bare CR": (b"GET / HTTP/1.1\r\n%sA: b\rC: d\r\n\r\n", 400),
    "a folded line": (b"GET / HTTP/1.1\r\n%sA: b\r\n c\r\n\r\n", 400),
    "a NUL": (b"GET / HTTP/1.1\r\n%sA: b\0c\r\n\r\n", 400),
    "space before the colon": (b"GET / HTTP/1.1\r\n%sContent-Length : 5\r\n\r\nabcde", 400),
    "no name": (b"GET / HTTP/1.1\r\n%s: b\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\n%sHost: other\r\n\r\n", 421),
    "a space in the target": (b"GET /a b HTTP/1.1\r\n%s\r\n", 400),
    "10 MB of head": (b"GET / HTTP/1.1\r\n%sA: " + b"b" * 10_000_000, 431),
}

# Chunked bodies that are broken.
BROKEN_CHUNKS: dict[str, bytes] = {
    "LF alone": b"3\nabc\n0\n\n\r\n\r\n",
    "a size of too many digits": b"1" * 30 + b"\r\nabc\r\n",
    "a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "more than its size": b"2\r\nabc\r\n0\r\n\r\n",
    "LF in an extension": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
}

# Answers of servers that are refused with 502.
BROKEN_HEADS: dict[str, bytes] = {
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "+5": b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nabcde",
    "0x5": b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nabcde",
    "chunked, identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "xchunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\n" + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
    "a bare LF": b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
    "bare LFs alone": b"HTTP/1.1 200 OK\n\nabc",
    "a bare CR": b"HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n",
    "a folded line": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
    "a NUL": b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nabcde",
    "no name": b"HTTP/1.1 200 OK\r\n: b\r\n\r\n",
    "10 MB of head": b"HTTP/1.1 200 OK\r\nA: " + b"b" * 10_000_000,
}

UPGRADE = ("Connection: Upgrade", "Upgrade: x")


class FidelityTests(ChainCase):
    async def test_heads_keep_their_case_and_order(self) -> None:
        browser, server = await self.ask(
            self.head("GET", "/A?b=%20", "x-ONE: 1", "Cookie: a", "X-two: 2", "cookie: b", "ACCEPT: */*")
        )
        lines = server.heard.decode().split("\r\n")
        self.assertEqual(lines[0], "GET /A?b=%20 HTTP/1.1")
        self.assertEqual(lines[2:7], ["x-ONE: 1", "Cookie: a", "X-two: 2", "cookie: b", "ACCEPT: */*"])
        fields = b"x-B: 1\r\nSET-cookie: a=1\r\nX-a: \xe9\r\nSet-Cookie: b=2\r\ncontent-LENGTH: 2\r\n"
        server.transport.write(b"HTTP/1.1 299 Quite Fine\r\n" + fields + b"\r\nok")
        await browser.see(b"\r\n\r\nok")
        self.assertEqual(bytes(browser.data), b"HTTP/1.1 299 Quite Fine\r\n" + fields + b"\r\nok")

    async def test_responses_without_a_body(self) -> None:
        browser = await self.browser()
        server: Any = None
        for method, answer in (
            ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"),
            ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n"),
            ("GET", b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n"),
            ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: y\r\nContent-Length: 6\r\n\r\n"),
            ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ):
            browser.data.clear()
            browser.transport.write(self.head(method))
            server = server or await self.server.connection()
            await server.until(b"\r\n\r\n")
            server.heard = b""
            server.transport.write(answer)
            await browser.see(answer)
        # All over one connection at either end: nobody waited for a body.
        self.assertEqual(bytes(browser.data), answer)

    async def test_an_expectation_is_met(self) -> None:
        browser = await self.browser()
        browser.transport.write(self.head("POST", "/", "Content-Length: 5", "Expect: 100-continue"))
        if self.mux:
            server = await self.server.connection()
            await server.until(b"\r\n\r\n")
            self.assertIn(b"Expect: 100-continue\r\n", server.heard)
            self.assertEqual(bytes(browser.data), b"")
            server.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await browser.see(b"HTTP/1.1 100 ")
        browser.transport.write(b"abcde")
        if not self.mux:
            server = await self.server.connection()
        await server.until(b"\r\n\r\nabcde")
        server.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await browser.see(b"\r\n\r\nok")
        self.assertEqual(browser.data.count(b" 100 "), 1)

    async def test_an_expectation_is_refused(self) -> None:
        if not self.mux:
            # The bridge answers for a host that cannot pass 100 on.
            return await self._early()
        request = self.head("POST", "/", "Content-Length: 5", "Expect: 100-continue")
        browser, server = await self.ask(request)
        server.transport.write(b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno")
        await browser.see(b"\r\n\r\nno")
        self.assertTrue(browser.data.startswith(b"HTTP/1.1 417 No\r\n"))
        self.assertNotIn(b"HTTP/1.1 100", browser.data)

    async def test_an_early_answer_while_the_body_comes(self) -> None:
        await self._early()

    async def _early(self) -> None:
        browser, server = await self.ask(self.head("POST", "/", "Content-Length: 10000000") + b"x" * 70_000)
        server.transport.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await browser.see(b"\r\n\r\nbig")
        # More is taken without a reset, and the connection ends in order.
        browser.transport.write(b"x" * 1_000_000)
        browser.transport.loseWriteConnection()
        await browser.gone
        self.assertTrue(browser.data.endswith(b"\r\n\r\nbig"))
        server.transport.loseConnection()
        await server.lost

    async def test_interim_answers(self) -> None:
        browser, server = await self.ask(self.head())
        server.transport.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        if self.mux:
            await browser.see(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        server.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await browser.see(b"\r\n\r\nok")

    async def test_chunks_both_ways_and_trailers(self) -> None:
        browser, server = await self.ask(self.head("POST", "/", "Transfer-Encoding: \tchunked "))
        self.assertEqual(server.heard.lower().count(b"transfer-encoding: chunked\r\n"), 1)
        browser.transport.write(b"5;ext=1\r\nhello\r\n")
        await server.until(b"\r\n\r\n5\r\nhello\r\n")
        server.transport.write(b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n3;a=b\r\nabc\r\n")
        await browser.see(b"3\r\nabc\r\n")
        browser.transport.write(b"0\r\nX-Trailer: of the request\r\n\r\n")
        await server.until(b"0\r\n\r\n")
        server.transport.write(b"0\r\nDigest: d\r\nContent-Length: 3\r\n\r\n")
        trailers = b"Digest: d\r\n" if self.mux else b""
        await browser.see(b"3\r\nabc\r\n0\r\n" + trailers + b"\r\n")

    async def test_events_leave_one_by_one(self) -> None:
        browser, server = await self.ask(self.head("GET", "/", "Accept: text/event-stream"))
        server.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + CHUNKED + b"\r\n")
        await browser.see(b"text/event-stream")
        for number in range(3):
            # The next one is not made before this one has been read.
            event = b"data: %d\n\n" % number
            server.transport.write(b"%x\r\n%s\r\n" % (len(event), event))
            await browser.see(event)
        browser.transport.abortConnection()
        await server.lost

    async def test_bodies_that_end_with_the_connection(self) -> None:
        browser, server = await self.ask(self.head())
        server.transport.write(b"HTTP/1.0 200 OK\r\n\r\nfirst ")
        await browser.see(b"first ")
        server.transport.write(b"second")
        server.transport.loseConnection()
        await browser.see(b"second\r\n0\r\n\r\n")
        browser, server = await self.ask(self.head())
        server.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await browser.see(b"half")
        server.transport.loseConnection()
        await browser.gone
        self.assertTrue(browser.data.endswith(b"\r\n\r\nhalf"))

    async def test_an_upload_that_is_given_up(self) -> None:
        for request in (
            self.head("POST", "/", "Content-Length: 100") + b"half",
            self.head("POST", "/", "Transfer-Encoding: chunked") + b"4\r\nhalf\r\n",
        ):
            browser, server = await self.ask(request, b"half")
            browser.transport.abortConnection()
            await server.lost
            self.assertFalse(server.heard.endswith(b"0\r\n\r\n"))

    async def test_a_large_upload_and_its_echo(self) -> None:
        body = os.urandom(1_000_000)
        browser, server = await self.ask(self.head("POST", "/", "Content-Length: 1000000") + body, body[-64:])
        got = server.heard.partition(b"\r\n\r\n")[2]
        self.assertEqual(hashlib.sha256(got).digest(), hashlib.sha256(body).digest())
        server.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + body)
        await browser.see(body[-64:])
        self.assertEqual(bytes(browser.data).partition(b"\r\n\r\n")[2], body)


class SmugglingTests(ChainCase):
    async def test_requests_that_are_refused(self) -> None:
        host = b"Host: shop-web.preview.localhost:%d\r\n" % self.bridge.port
        for request, status in SMUGGLED.values():
            await self.refused(request.replace(b"%s", host), status)
        # None of them, nor anything hidden in one, has reached the server.
        browser, server = await self.ask(self.head("GET", "/last"))
        self.assertTrue(server.heard.startswith(b"GET /last "))
        browser.transport.abortConnection()
        await server.lost

    async def test_chunks_that_are_refused(self) -> None:
        for body in BROKEN_CHUNKS.values():
            browser, server = await self.ask(self.head("POST", "/", "Transfer-Encoding: chunked"))
            browser.transport.write(body)
            await browser.see(b"HTTP/1.1 400 ")
            await server.lost
            self.assertNotIn(b"0\r\n\r\n", server.heard)

    async def test_requests_that_are_normalised(self) -> None:
        for lines, sent in (
            (("Content-Length: 5, 5",), b"Content-Length: 5\r\n"),
            (("Content-Length: 5", "content-length: 5"), b"Content-Length: 5\r\n"),
            (("Transfer-Encoding: Chunked",), CHUNKED),
        ):
            chunked = sent == CHUNKED
            body = b"5;x\r\nabcde\r\n0\r\n\r\n" if chunked else b"abcde"
            end = b"5\r\nabcde\r\n0\r\n\r\n" if chunked else b"abcde"
            browser, server = await self.ask(self.head("POST", "/", *lines) + body, b"\r\n\r\n" + end)
            self.assertEqual(server.heard.count(sent), 1)
            self.assertEqual(server.heard.lower().count(b"content-length"), 0 if chunked else 1)
            browser.transport.abortConnection()
            await server.lost

    async def test_answers_that_are_refused(self) -> None:
        for name, answer in BROKEN_HEADS.items():
            browser, server = await self.ask(self.head())
            server.transport.write(answer)
            await browser.see(b"HTTP/1.1 502 ")
            await server.lost
            self.assertEqual(browser.data.count(b"HTTP/1.1 "), 1, name)

    async def test_broken_chunks_end_the_answer_unmistakably(self) -> None:
        for name, body in BROKEN_CHUNKS.items():
            browser, server = await self.ask(self.head())
            server.transport.write(b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"\r\n" + body)
            await browser.gone
            self.assertNotIn(b"\r\n0\r\n\r\n", browser.data, name)
            await server.lost

    async def test_answers_that_are_normalised(self) -> None:
        for answer, seen in (
            (LENGTH_5 + CHUNKED + b"\r\n3;x\r\nabc\r\n0\r\n\r\n", b"\r\n3\r\nabc\r\n0\r\n\r\n"),
            (b"Content-Length: 5, 5\r\n\r\nabcde", b"\r\nContent-Length: 5\r\n\r\nabcde"),
            (LENGTH_5 + LENGTH_5 + b"\r\nabcde", b" OK\r\nContent-Length: 5\r\n\r\nabcde"),
            (b"Transfer-Encoding:\tCHUNKED\t\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
        ):
            browser, server = await self.ask(self.head())
            server.transport.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + answer)
            await browser.see(seen)
            if b"chunked" in answer.lower():
                self.assertNotIn(b"content-length", browser.data.lower())
            await server.lost


class UpgradeTests(ChainCase):
    async def test_bytes_in_the_packet_of_the_head_both_ways(self) -> None:
        browser, server = await self.ask(self.head("GET", "/", *UPGRADE) + b"early", b"\r\n\r\n")
        server.transport.write(b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nfirst")
        await browser.see(b"Upgrade\r\n\r\nfirst")
        await server.until(b"\r\n\r\nearly")
        browser.transport.write(b"ping")
        await server.until(b"earlyping")
        server.transport.write(b"pong")
        await browser.see(b"firstpong")

    async def test_an_upgrade_that_is_refused_shows_the_answer(self) -> None:
        browser, server = await self.ask(self.head("GET", "/", *UPGRADE))
        server.transport.write(b"HTTP/1.1 403 No\r\nX-Why: so\r\nContent-Length: 6\r\n\r\nsorry!")
        await browser.see(b"\r\n\r\nsorry!")
        self.assertTrue(browser.data.startswith(b"HTTP/1.1 403 No\r\nX-Why: so\r\n"))
        server.transport.loseConnection()
        await browser.gone

    async def test_an_upgrade_with_a_body_is_a_plain_request(self) -> None:
        hidden = b"GET /hidden HTTP/1.1\r\n\r\n"
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(hidden), hidden)
        browser, server = await self.ask(
            self.head("POST", "/", *UPGRADE, "Transfer-Encoding: chunked") + body, b"\r\n0\r\n\r\n"
        )
        self.assertTrue(server.heard.endswith(b"\r\n\r\n" + body))
        self.assertNotIn(b"upgrade", server.heard.lower())
        browser.transport.abortConnection()
        await server.lost

    async def test_close_codes_of_websockets_pass(self) -> None:
        key = base64.b64encode(b"0123456789abcdef").decode()
        words = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        browser, server = await self.ask(self.head("GET", "/", *words, f"Sec-WebSocket-Key: {key}"))
        accept = base64.b64encode(
            hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        )
        server.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        await browser.see(accept + b"\r\n\r\n")
        # A close with 4123 each way (RFC 6455, section 5.5.1); the browser's is masked with zeros.
        server.transport.write(b"\x88\x05" + (4123).to_bytes(2, "big") + b"bye")
        await browser.see(b"\x88\x05\x10\x1bbye")
        browser.transport.write(b"\x88\x82\0\0\0\0\x10\x1b")
        await server.until(b"\x88\x82\0\0\0\0\x10\x1b")
        browser.transport.loseConnection()
        await server.lost


class FidelityRevision1Tests(FidelityTests):
    mux = False


class SmugglingRevision1Tests(SmugglingTests):
    mux = False


class UpgradeRevision1Tests(UpgradeTests):
    mux = False
