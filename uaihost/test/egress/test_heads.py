"""What a program asks of the proxy, and the exchange that follows."""

from __future__ import annotations

import h11
from twisted.trial.unittest import SynchronousTestCase

from uaihost.egress.heads import (
    HEAD_LIMIT,
    TUNNEL_OPENS,
    Asked,
    BadRequest,
    BadResponse,
    RequestReader,
    answer,
)
from uaihost.egress.names import Destination
from uaihost.test.support import given, strategies

CHUNKED = b"POST http://a.example/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def asked(data: bytes) -> Asked:
    found = RequestReader().feed(data)
    assert found is not None
    return found


def refused(data: bytes) -> BadRequest:
    try:
        RequestReader().feed(data)
    except BadRequest as error:
        return error
    raise AssertionError(data)


class RequestTests(SynchronousTestCase):
    def test_connect(self) -> None:
        found = asked(b"CONNECT A.example:443 HTTP/1.1\r\nHost: other:1\r\n\r\nearly")
        self.assertEqual(found.to, Destination("a.example", 443))
        self.assertEqual(found.carriage.begin(), (TUNNEL_OPENS, b"early"))

    def test_an_absolute_target(self) -> None:
        self.assertEqual(
            asked(b"GET HTTP://A.example HTTP/1.1\r\nHost: b\r\n\r\n").to, Destination("a.example", 80)
        )
        self.assertEqual(
            asked(b"GET http://[::1]:81/ HTTP/1.0\r\n\r\n").to,
            Destination("::1", 81),
        )

    def test_the_target_counts_and_not_the_host_header(self) -> None:
        _, sent = asked(b"GET http://a.example:81/p?q=1 HTTP/1.1\r\nHost: b.example\r\n\r\n").carriage.begin()
        self.assertEqual(sent, b"GET /p?q=1 HTTP/1.1\r\nHost: a.example:81\r\nConnection: close\r\n\r\n")

    def test_fields_of_the_hop_stay_here(self) -> None:
        _, sent = asked(
            b"GET http://a.example HTTP/1.1\r\nHost: b\r\nProxy-Authorization: Basic x\r\nX-One: 1\r\n"
            b"Proxy-Connection: keep-alive\r\nConnection: x-one, close, host, content-length\r\n"
            b"TE: trailers\r\n"
            b"Upgrade: websocket\r\nKeep-Alive: 5\r\nX-Two: 2\r\n\r\n"
        ).carriage.begin()
        self.assertEqual(sent, b"GET / HTTP/1.1\r\nHost: a.example\r\nX-Two: 2\r\nConnection: close\r\n\r\n")

    def test_what_is_no_request_to_a_proxy(self) -> None:
        for data in (
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET https://a.example/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http:/a.example/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://u:p@a.example/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a.example:0/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a.example\\@b.example/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://[::1/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a%2eb/ HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET http://a.example/ HTTP/1.1\r\n\r\n",
            b"CONNECT a.example HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT a.example: HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT http://a.example:443 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT u@a.example:443 HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT a.example:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
            b"CONNECT a.example:443 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            CHUNKED.removesuffix(b"\r\n") + b"Content-Length: 1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            b"\x05\x01\x00\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        ):
            self.assertEqual(refused(data).status, 400, data)

    def test_a_head_without_an_end_is_given_up(self) -> None:
        reader = RequestReader()
        self.assertIsNone(reader.feed(b"GET http://a.example/ HTTP/1.1\r\nA: " + b"a" * (HEAD_LIMIT - 100)))
        with self.assertRaises(BadRequest) as caught:
            reader.feed(b"a" * 200)
        self.assertEqual(caught.exception.status, 431)

    @given(strategies.binary(max_size=300))
    def test_any_bytes_are_a_request_or_refused(self, data: bytes) -> None:
        for text in (data, b"CONNECT " + data, b"GET http://" + data, CHUNKED + data):
            try:
                found = RequestReader().feed(text)
                if found is not None:
                    found.carriage.begin()
            except BadRequest as error:
                self.assertIn(error.status, (400, 431, 501, 505))

    @given(strategies.lists(strategies.integers(1, 40), max_size=8))
    def test_pieces_are_as_good_as_the_whole(self, sizes: list[int]) -> None:
        data = b"CONNECT a.example:22 HTTP/1.1\r\nHost: a.example:22\r\nUser-Agent: x\r\n\r\nSSH-2.0-x\r\n"
        reader, found, rest = RequestReader(), None, data
        for size in sizes:
            piece, rest = rest[:size], rest[size:]
            if found is None and piece:
                found = reader.feed(piece)
            elif found is not None:
                rest = piece + rest
                break
        if found is None:
            found, rest = reader.feed(rest), b""
        assert found is not None
        self.assertEqual(found.to, Destination("a.example", 22))
        self.assertEqual(found.carriage.begin()[1] + rest, b"SSH-2.0-x\r\n")


class FetchTests(SynchronousTestCase):
    def test_a_body_with_a_length(self) -> None:
        fetch = asked(b"PUT http://a.example/ HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc").carriage
        _, sent = fetch.begin()
        self.assertEqual(
            sent, b"PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 6\r\nConnection: close\r\n\r\nabc"
        )
        self.assertEqual(fetch.from_client(b"de"), b"de")
        self.assertEqual(fetch.from_client(b"fGET http://b.example/ HTTP/1.1\r\n"), b"f")
        self.assertEqual(fetch.from_client(b"Host: b\r\n\r\n"), b"")

    def test_a_second_request_goes_nowhere(self) -> None:
        fetch = asked(
            b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET http://b.example/ HTTP/1.1\r\nHost: b\r\n\r\n"
        ).carriage
        _, sent = fetch.begin()
        self.assertNotIn(b"b.example", sent)
        self.assertEqual(fetch.from_client(b"GET http://c.example/ HTTP/1.1\r\n\r\n"), b"")

    def test_a_body_in_chunks(self) -> None:
        fetch = asked(CHUNKED).carriage
        fetch.begin()
        self.assertEqual(fetch.from_client(b"3;x=y\r\nabc\r\n"), b"3\r\nabc\r\n")
        self.assertEqual(fetch.from_client(b"0\r\nTrailer: x\r\n\r\n"), b"0\r\n\r\n")

    def test_a_broken_body_is_refused(self) -> None:
        fetch = asked(CHUNKED).carriage
        fetch.begin()
        with self.assertRaises(BadRequest):
            fetch.from_client(b"xyz\r\n")

    def test_the_answer_ends_the_exchange(self) -> None:
        fetch = asked(b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\n\r\n").carriage
        fetch.begin()
        self.assertEqual(
            fetch.from_server(
                b"HTTP/1.1 200 Fine\r\nServer: s\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\n"
                b"Keep-Alive: 5\r\nContent-Length: 4\r\n\r\nab"
            ),
            b"HTTP/1.1 200 Fine\r\nServer: s\r\nContent-Length: 4\r\nConnection: close\r\n\r\nab",
        )
        self.assertFalse(fetch.over)
        self.assertEqual(fetch.from_server(b"cdHTTP/1.1 200 stray"), b"cd")
        self.assertTrue(fetch.over)

    def test_interim_answers_are_passed_on(self) -> None:
        fetch = asked(
            b"PUT http://a.example/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
        ).carriage
        _, sent = fetch.begin()
        self.assertIn(b"Expect: 100-continue\r\n", sent)
        self.assertEqual(fetch.from_server(b"HTTP/1.1 100 Go\r\n\r\n"), b"HTTP/1.1 100 Go\r\n\r\n")
        self.assertEqual(fetch.from_client(b"x"), b"x")

    def test_an_answer_that_ends_with_the_connection(self) -> None:
        fetch = asked(b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\n\r\n").carriage
        fetch.begin()
        said = fetch.from_server(b"HTTP/1.0 200 OK\r\n\r\nabc") + fetch.server_ended()
        self.assertTrue(fetch.over)
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(said)
        client.next_event()
        body = client.next_event()
        assert isinstance(body, h11.Data)
        self.assertEqual(bytes(body.data), b"abc")

    def test_an_answer_cut_short(self) -> None:
        fetch = asked(b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\n\r\n").carriage
        fetch.begin()
        fetch.from_server(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        with self.assertRaises(BadResponse):
            fetch.server_ended()

    def test_an_answer_that_is_none(self) -> None:
        for said in (b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", b"HTTP/1.1 101 No\r\n\r\n"):
            fetch = asked(b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\n\r\n").carriage
            fetch.begin()
            with self.assertRaises(BadResponse, msg=repr(said)):
                fetch.from_server(said)

    def test_a_client_that_ends_in_its_request_ends_the_exchange(self) -> None:
        fetch = asked(CHUNKED).carriage
        fetch.begin()
        self.assertFalse(fetch.client_ended())
        self.assertTrue(fetch.over)

    def test_a_client_that_ends_after_its_request_still_gets_the_answer(self) -> None:
        fetch = asked(b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\n\r\n").carriage
        fetch.begin()
        self.assertFalse(fetch.client_ended())
        self.assertFalse(fetch.over)

    @given(strategies.binary(max_size=200), strategies.booleans())
    def test_any_answer_is_passed_on_or_refused(self, data: bytes, headed: bool) -> None:
        fetch = asked(b"GET http://a.example/ HTTP/1.1\r\nHost: a\r\n\r\n").carriage
        fetch.begin()
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" if headed else b""
        try:
            fetch.from_server(head + data if head + data else b"x")
            if not fetch.over:
                fetch.server_ended()
        except BadResponse as error:
            self.assertTrue(str(error))
        else:
            self.assertTrue(fetch.over)


class TunnelTests(SynchronousTestCase):
    def test_each_direction_ends_by_itself(self) -> None:
        tunnel = asked(b"CONNECT a.example:22 HTTP/1.1\r\nHost: a\r\n\r\n").carriage
        tunnel.begin()
        self.assertEqual(tunnel.from_client(b"GET"), b"GET")
        self.assertTrue(tunnel.client_ended())
        self.assertFalse(tunnel.over)
        self.assertEqual(tunnel.from_server(b"x"), b"x")
        self.assertEqual(tunnel.server_ended(), b"")
        self.assertTrue(tunnel.over)


class AnswerTests(SynchronousTestCase):
    def test_it_is_whole(self) -> None:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(answer(403, "née is blocked"))
        head = client.next_event()
        assert isinstance(head, h11.Response)
        self.assertEqual((head.status_code, bytes(head.reason)), (403, b"Blocked by the egress policy"))
        body = client.next_event()
        assert isinstance(body, h11.Data)
        self.assertEqual(bytes(body.data).decode(), "née is blocked\n")
