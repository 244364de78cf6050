"""HTTP heads: what is passed on, what is dropped, what is refused."""

from __future__ import annotations

import h11
from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.support import given, strategies
from uaihost.tunnels.head import (
    HEAD_LIMIT,
    BadHead,
    BadRequest,
    HeadReader,
    ResponseHead,
    plain_request,
    raw_request,
    response_head,
)
from uaihost.wire.frames import Header, RequestLine


def line(*headers: Header, method: str = "GET", url: str = "/") -> RequestLine:
    return RequestLine(method, url, list(headers))


class PlainRequestTests(SynchronousTestCase):
    def fields(self, *headers: Header, scheme: str = "http") -> list[Header]:
        request = plain_request(line(*headers), scheme)
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.fields]

    def names(self, *headers: Header) -> list[str]:
        return [name.lower() for name, _ in self.fields(*headers)]

    def test_host_becomes_the_upstreams_and_the_original_is_kept_beside(self) -> None:
        self.assertEqual(
            self.fields(("HOST", "t-web.example:8789"), ("Accept", "*/*")),
            [
                ("Host", "127.0.0.1"),
                ("Accept", "*/*"),
                ("X-Forwarded-Host", "t-web.example:8789"),
                ("X-Forwarded-Proto", "http"),
                ("X-Forwarded-For", "127.0.0.1"),
            ],
        )

    def test_what_the_bridge_says_of_the_browser_is_kept(self) -> None:
        given_headers = [
            ("x-forwarded-host", "public.example"),
            ("X-Forwarded-Proto", "https"),
            ("X-FORWARDED-FOR", "192.0.2.7"),
        ]
        self.assertEqual(self.fields(("Host", "h"), *given_headers), [("Host", "127.0.0.1"), *given_headers])

    def test_the_scheme_is_said(self) -> None:
        self.assertIn(("X-Forwarded-Proto", "https"), self.fields(("Host", "h"), scheme="https"))

    def test_a_request_without_host_gets_one(self) -> None:
        self.assertEqual(self.fields()[0], ("Host", "127.0.0.1"))
        self.assertNotIn("x-forwarded-host", self.names())

    def test_one_host_only(self) -> None:
        fields = self.fields(("Host", "first"), ("Host", "second"))
        self.assertEqual([value for name, value in fields if name.lower() == "host"], ["127.0.0.1"])
        self.assertIn(("X-Forwarded-Host", "first"), fields)

    def test_hop_by_hop_headers_are_dropped(self) -> None:
        for name in (
            "Connection",
            "keep-alive",
            "Proxy-Authenticate",
            "PROXY-AUTHORIZATION",
            "TE",
            "Trailer",
            "transfer-encoding",
            "Upgrade",
        ):
            self.assertNotIn(name.lower(), self.names((name, "x")), name)

    def test_headers_named_by_connection_are_dropped(self) -> None:
        names = self.names(
            ("X-Hop", "1"), ("Connection", "close, x-hop ,X-Other"), ("x-other", "2"), ("X-Stay", "3")
        )
        self.assertEqual(names[:2], ["host", "x-stay"])
        self.assertNotIn("x-other", names)

    def test_repeated_headers_stay_repeated_in_order(self) -> None:
        fields = self.fields(("Cookie", "a=1"), ("X", "y"), ("cookie", "b=2"))
        self.assertEqual(fields[1:4], [("Cookie", "a=1"), ("X", "y"), ("cookie", "b=2")])

    def test_values_keep_their_bytes(self) -> None:
        request = plain_request(line(("X", "\xe9 \x01 \xff")), "http")
        self.assertIn((b"X", b"\xe9 \x01 \xff"), request.fields)

    def test_bytes_beyond_ascii_in_the_url_are_escaped(self) -> None:
        self.assertEqual(
            plain_request(line(url="/caf\xc3\xa9?a=%20&b"), "http").target, b"/caf%C3%A9?a=%20&b"
        )

    def test_how_the_body_is_framed(self) -> None:
        chunked = (b"Transfer-Encoding", b"chunked")
        for method, headers, body, announced, framing in (
            ("GET", [], False, False, None),
            ("GET", [], True, False, chunked),
            ("POST", [], False, False, (b"Content-Length", b"0")),
            ("POST", [], True, False, chunked),
            ("POST", [("content-length", "12")], True, True, (b"Content-Length", b"12")),
            (
                "POST",
                [("Content-Length", "7, 7"), ("Content-Length", "7")],
                True,
                True,
                (b"Content-Length", b"7"),
            ),
            ("GET", [("Content-Length", "0")], False, True, (b"Content-Length", b"0")),
            ("POST", [("Transfer-Encoding", "chunked")], False, True, chunked),
            ("POST", [("Transfer-Encoding", "gzip, chunked"), ("Content-Length", "5")], True, True, chunked),
        ):
            request = plain_request(line(*headers, method=method), "http")
            framed = [
                field
                for field in request.framed(body)
                if field[0].lower() in (b"content-length", b"transfer-encoding")
            ]
            self.assertEqual(framed, [framing] if framing else [], (method, headers, body))
            self.assertEqual(request.announced, announced, (method, headers))

    def test_what_may_be_sent_twice(self) -> None:
        for method, headers, repeatable in (
            ("GET", [], True),
            ("DELETE", [], True),
            ("PUT", [("Content-Length", "0")], True),
            ("PUT", [("Content-Length", "1")], False),
            ("GET", [("Transfer-Encoding", "chunked")], False),
            ("POST", [], False),
            ("PATCH", [], False),
        ):
            request = plain_request(line(*headers, method=method), "http")
            self.assertEqual(request.repeatable, repeatable, (method, headers))

    def test_a_length_that_is_none_is_refused(self) -> None:
        for value in ("", "-1", "1 2", "0x10", "1,2", "٣", "9" * 21, "+1"):
            with self.assertRaises(BadRequest):
                plain_request(line(("Content-Length", value)), "http")

    def test_connect_is_refused(self) -> None:
        with self.assertRaises(BadRequest):
            plain_request(line(method="CONNECT", url="example:443"), "http")


INJECTIONS: list[RequestLine] = [
    line(method="GET /x HTTP/1.1\r\nX: y\r\n\r\nGET"),
    line(method="GE T"),
    line(method=""),
    line(method="G\x00T"),
    line(method="GÉT"),
    line(url="/ HTTP/1.1\r\nX: y"),
    line(url="/a b"),
    line(url="/a\tb"),
    line(url="/\n"),
    line(url="/\x00"),
    line(url=""),
    line(url="/\u20ac"),
    line(url="/\x7f"),
    line(("X\r\nY", "z")),
    line(("X:", "z")),
    line(("X Y", "z")),
    line((" X", "z")),
    line(("", "z")),
    line(("X\x00", "z")),
    line(("Xé", "z")),
    line(("X", "a\r\nY: b")),
    line(("X", "a\n b")),
    line(("X", "a\rb")),
    line(("X", "a\x00b")),
    line(("X", "a\x0bb")),
    line(("X", "\x0c")),
    line(("X", "z\n")),
    line(("X", "price: 5 €")),
    line(("Host", "a\r\nb")),
    line(("Connection", "a\nb")),
    line(("Transfer-Encoding", "chunked\r\n\r\n")),
]


class InjectionTests(SynchronousTestCase):
    def test_whatever_could_end_a_line_is_refused(self) -> None:
        for bad in INJECTIONS:
            with self.assertRaises(BadRequest, msg=repr(bad)):
                plain_request(bad, "http")
            with self.assertRaises(BadRequest, msg=repr(bad)):
                raw_request(bad)

    def test_the_refusal_names_the_header_and_not_its_value(self) -> None:
        with self.assertRaises(BadRequest) as raised:
            raw_request(line(("Cookie", "secret\n")))
        self.assertIn("Cookie", str(raised.exception))
        self.assertNotIn("secret", str(raised.exception))

    @given(
        method=strategies.text(max_size=6),
        url=strategies.text(max_size=12),
        headers=strategies.lists(
            strategies.tuples(strategies.text(max_size=6), strategies.text(max_size=12)), max_size=3
        ),
    )
    def test_a_raw_head_has_as_many_lines_as_it_should(
        self, method: str, url: str, headers: list[Header]
    ) -> None:
        try:
            head = raw_request(RequestLine(method, url, headers))
        except BadRequest:
            return
        self.assertEqual(head.count(b"\n"), len(headers) + 2)
        self.assertEqual(head.count(b"\r"), len(headers) + 2)
        self.assertTrue(head.endswith(b"\r\n\r\n"))

    @given(
        url=strategies.text(strategies.characters(max_codepoint=255), max_size=12),
        headers=strategies.lists(
            strategies.tuples(
                strategies.sampled_from(["X-One", "cookie", "Host", "Accept"]),
                strategies.text(strategies.characters(max_codepoint=255), max_size=12),
            ),
            max_size=3,
        ),
    )
    def test_what_a_plain_request_accepts_can_be_sent(self, url: str, headers: list[Header]) -> None:
        try:
            request = plain_request(RequestLine("GET", url, headers), "http")
        except BadRequest:
            return
        sent = h11.Connection(h11.CLIENT).send(
            h11.Request(method=request.method, target=request.target, headers=request.framed(False))
        )
        server = h11.Connection(h11.SERVER)
        server.receive_data(sent)
        self.assertIsInstance(server.next_event(), h11.Request)
        self.assertIsInstance(server.next_event(), h11.EndOfMessage)
        self.assertEqual(server.trailing_data[0], b"")


class RawRequestTests(SynchronousTestCase):
    def test_everything_stays_as_given(self) -> None:
        request = line(
            ("Host", "t-web.example"),
            ("connection", "Upgrade"),
            ("UPGRADE", "websocket"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
            ("X-Twice", "1"),
            ("X-Twice", "\xe9"),
            ("X-Empty", ""),
            url="/caf\xe9?x",
        )
        self.assertEqual(
            raw_request(request),
            b"GET /caf\xe9?x HTTP/1.1\r\nHost: t-web.example\r\nconnection: Upgrade\r\nUPGRADE: websocket\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
            b"X-Twice: 1\r\nX-Twice: \xe9\r\nX-Empty: \r\n\r\n",
        )


class ResponseHeadTests(SynchronousTestCase):
    def test_order_and_case_stay_and_hop_by_hop_headers_go(self) -> None:
        head = response_head(
            200,
            "Fine",
            [
                ("x-B", "1"),
                ("Connection", "close, X-Hop"),
                ("X-hop", "2"),
                ("Set-Cookie", "a"),
                ("TRANSFER-ENCODING", "chunked"),
                ("X-a", "é"),
                ("Set-Cookie", "b"),
                ("Keep-Alive", "timeout=5"),
            ],
        )
        self.assertEqual(
            head,
            ResponseHead(200, "Fine", [("x-B", "1"), ("Set-Cookie", "a"), ("X-a", "é"), ("Set-Cookie", "b")]),
        )

    def test_a_missing_reason_is_the_usual_one(self) -> None:
        self.assertEqual(response_head(404, "", []).text, "Not Found")
        self.assertEqual(response_head(799, "", []).text, "")


# What a server sends, the head that is made of it, and what follows it.
HEADS: list[tuple[bytes, ResponseHead, bytes]] = [
    (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"X-b:  two words \r\n\r\n",
        ResponseHead(
            101,
            "Switching Protocols",
            [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("X-b", "two words")],
        ),
        b"",
    ),
    (b"HTTP/1.0 200 OK\r\n\r\n\r\n\r\n", ResponseHead(200, "OK", []), b"\r\n\r\n"),
    (b"HTTP/1.1 101\r\n\r\n\x81\x02hi", ResponseHead(101, "Switching Protocols", []), b"\x81\x02hi"),
    (b"HTTP/2 403 No\r\nA: b:c\r\n\r\n", ResponseHead(403, "No", [("A", "b:c")]), b""),
    (b"HTTP/1.1 200 OK\nA: b\n\nrest\n\n", ResponseHead(200, "OK", [("A", "b")]), b"rest\n\n"),
    (b"HTTP/1.1 200 OK\r\nnonsense\r\nA: b\r\n\r\n", ResponseHead(200, "OK", [("A", "b")]), b""),
    (b"SSH-2.0-OpenSSH\r\n\r\nx", ResponseHead(502, "Bad Gateway", []), b"x"),
    (b"HTTP/1.1 20 OK\r\nA: b\r\n\r\n", ResponseHead(502, "Bad Gateway", [("A", "b")]), b""),
    (b"HTTP/1.1 2000 OK\r\n\r\n", ResponseHead(502, "Bad Gateway", []), b""),
    (b"\r\n\r\n", ResponseHead(502, "Bad Gateway", []), b""),
    (b"HTTP/1.1 200 caf\xe9\r\nX: \xff\r\n\r\n", ResponseHead(200, "café", [("X", "ÿ")]), b""),
]


class HeadReaderTests(SynchronousTestCase):
    def test_whole(self) -> None:
        for sent, head, rest in HEADS:
            self.assertEqual(HeadReader().feed(sent), (head, rest), sent)

    def test_byte_by_byte(self) -> None:
        for sent, head, rest in HEADS:
            reader = HeadReader()
            length = len(sent) - len(rest)
            for index in range(length - 1):
                self.assertIsNone(reader.feed(sent[index : index + 1]), (sent, index))
            self.assertEqual(reader.feed(sent[length - 1 : length]), (head, b""), sent)

    def test_cut_anywhere(self) -> None:
        for sent, head, rest in HEADS:
            length = len(sent) - len(rest)
            for cut in range(length):
                reader = HeadReader()
                self.assertIsNone(reader.feed(sent[:cut]))
                self.assertEqual(reader.feed(sent[cut:]), (head, rest), (sent, cut))

    def test_a_head_without_end_is_refused(self) -> None:
        reader = HeadReader()
        self.assertIsNone(reader.feed(b"HTTP/1.1 200 OK\r\nX: " + b"y" * (HEAD_LIMIT - 100)))
        with self.assertRaises(BadHead):
            reader.feed(b"y" * 101)

    def test_the_largest_head_and_much_behind_it_in_one_read(self) -> None:
        start = b"HTTP/1.1 200 OK\r\nX: "
        largest = start + b"y" * (HEAD_LIMIT - len(start) - 1) + b"\r\n\r\n"
        found = HeadReader().feed(largest + b"z" * 200_000)
        assert found is not None
        self.assertEqual((found[0].status, len(found[1])), (200, 200_000))
        with self.assertRaises(BadHead):
            HeadReader().feed(start + b"y" * HEAD_LIMIT + b"\r\n\r\n")

    @given(strategies.lists(strategies.binary(max_size=20), max_size=8))
    def test_any_bytes_give_a_head_or_wait(self, pieces: list[bytes]) -> None:
        reader = HeadReader()
        received = b""
        for piece in pieces:
            received += piece
            found = reader.feed(piece)
            if found is not None:
                self.assertTrue(received.endswith(found[1]))
                return
        self.assertNotIn(b"\n\n", received)
        self.assertNotIn(b"\n\r\n", received)
