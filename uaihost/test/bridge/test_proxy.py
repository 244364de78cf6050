"""A browser's connection on one side, tunnel frames on the other."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.bridge.names import KnownTask, Names
from uaihost.bridge.proxy import CLOSING, IDLE, LINGER, MAX_HEAD, BrowserConnection
from uaihost.bridge.tunnel import Traffic
from uaihost.bridge.tunnels import HIGH_WATER, STALL_LIMIT
from uaihost.test.bridge.fakes import BrowserTransport, FakeOutlet, Link
from uaihost.test.bridge.test_names import Known, known
from uaihost.test.support import given, strategies
from uaihost.wire.frames import TunnelAck, TunnelClose

HOST = b"Host: a-web.preview.localhost:8789\r\n"
GET = b"GET /x?y=1 HTTP/1.1\r\n" + HOST + b"X-Case: Kept\r\nx-case: twice\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\n" + HOST + b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\nOrigin: http://x\r\n\r\n"
)


class ProxyCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.link = Link(self.clock)
        gone = KnownTask("b", "gone", frozenset())
        self.names = Names(8789, Known(known("a", "web"), gone))
        self.connect()

    def connect(self) -> None:
        self.browser = BrowserConnection(self.names, self.link, self.clock)
        self.transport = BrowserTransport()
        self.browser.makeConnection(self.transport)

    def outlet(self, number: int = 1) -> FakeOutlet:
        return self.link.wire.outlets[f"t{number}"]

    def ack(self, status: int = 200, *headers: tuple[str, str], number: int = 1, text: str = "OK") -> None:
        self.link.table.ack(TunnelAck(f"t{number}", True, status, text, list(headers)))

    def refuse(self, status: int, message: str) -> None:
        self.link.table.ack(TunnelAck("t1", False, status, message=message))

    def data(self, data: bytes, number: int = 1) -> None:
        self.link.table.data(f"t{number}")
        self.link.table.binary(data)

    def close(self, reason: str = "upstream ended", number: int = 1) -> None:
        self.link.table.close(TunnelClose(f"t{number}", reason))

    def lose(self) -> None:
        self.browser.connectionLost()


class PlainTests(ProxyCase):
    def test_a_request_becomes_a_tunnel(self) -> None:
        self.browser.dataReceived(GET)
        opened, ended = self.outlet().sent
        self.assertEqual(ended, {"kind": "tunnel.requestEnd", "tunnelId": "t1"})
        self.assertEqual(
            {key: opened[key] for key in ("kind", "target", "taskId", "name", "upgrade")},
            {"kind": "tunnel.open", "target": "preview", "taskId": "a", "name": "web", "upgrade": False},
        )
        self.assertEqual(
            opened["reqLine"],
            {
                "method": "GET",
                "url": "/x?y=1",
                "headers": [
                    ["Host", "a-web.preview.localhost:8789"],
                    ["X-Case", "Kept"],
                    ["x-case", "twice"],
                ],
            },
        )

    def test_a_response_with_a_length(self) -> None:
        self.browser.dataReceived(GET)
        self.ack(200, ("Content-Length", "5"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"))
        self.data(b"he")
        self.data(b"llo")
        self.close()
        self.assertEqual(
            self.transport.take(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nhello",
        )
        self.assertFalse(self.transport.disconnecting)
        self.assertTrue(self.outlet().discarded)
        self.assertEqual(len(self.link.table), 0)
        self.assertEqual(self.link.table.traffic, Traffic(opened=1, received=5))

    def test_a_response_without_a_length_is_chunked(self) -> None:
        self.browser.dataReceived(GET)
        self.ack()
        self.data(b"hello")
        self.close()
        head, body = self.transport.take().split(b"\r\n\r\n", 1)
        self.assertIn(b"transfer-encoding: chunked", head.lower())
        self.assertEqual(body, b"5\r\nhello\r\n0\r\n\r\n")

    def test_bytes_after_the_last_request_change_nothing(self) -> None:
        self.browser.dataReceived(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        self.browser.dataReceived(b"\r\n")
        self.ack(200, ("Content-Length", "5"))
        self.data(b"he")
        self.browser.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.data(b"llo")
        self.close()
        answer = self.transport.take()
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nhello"), answer)
        self.assertEqual(answer.count(b"HTTP/1.1"), 1)

    def test_a_broken_body_ends_a_response_that_has_begun_without_a_page(self) -> None:
        self.browser.dataReceived(
            b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
        )
        self.ack(200, ("Content-Length", "500"))
        self.data(b"part")
        self.browser.dataReceived(b"zz\r\n")
        self.assertTrue(self.transport.take().endswith(b"\r\n\r\npart"))
        self.assertTrue(self.transport.aborted)
        self.assertEqual(len(self.link.table), 0)

    def test_a_browser_is_read_again_once_its_upload_is_whole(self) -> None:
        self.browser.dataReceived(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nab")
        self.browser.pauseProducing()
        self.browser.dataReceived(b"cd")
        self.assertEqual(self.transport.producerState, "producing")

    def test_a_closed_browser_that_takes_nothing_is_given_up(self) -> None:
        self.browser.dataReceived(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        self.ack(200, ("Content-Length", "2"))
        self.data(b"ok")
        self.close()
        self.assertFalse(self.transport.aborted)
        self.clock.advance(CLOSING)
        self.assertTrue(self.transport.aborted)

    def test_a_head_request_has_no_body(self) -> None:
        self.browser.dataReceived(GET.replace(b"GET", b"HEAD", 1))
        self.ack(200, ("Content-Length", "5"))
        self.close()
        self.assertTrue(self.transport.take().endswith(b"Content-Length: 5\r\n\r\n"))
        self.assertFalse(self.transport.disconnecting)

    @given(strategies.lists(strategies.integers(1, 50), max_size=20))
    def test_a_body_arrives_however_it_is_cut(self, cuts: list[int]) -> None:
        self.setUp()
        body = bytes(range(256))
        request = b"POST /up HTTP/1.1\r\n" + HOST + b"Content-Length: 256\r\n\r\n" + body
        at = 0
        for cut in cuts:
            self.browser.dataReceived(request[at : at + cut])
            at += cut
        self.browser.dataReceived(request[at:])
        self.assertEqual(self.outlet().body(), body)
        self.assertEqual(self.outlet().kinds()[-1], "tunnel.requestEnd")

    def test_a_chunked_body_loses_its_framing(self) -> None:
        self.browser.dataReceived(
            b"POST / HTTP/1.1\r\n"
            + HOST
            + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        self.assertEqual(self.outlet().body(), b"abcde")
        self.assertEqual(self.outlet().kinds()[-1], "tunnel.requestEnd")

    def test_a_body_that_never_comes_is_not_ended(self) -> None:
        self.browser.dataReceived(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nab")
        self.assertNotIn("tunnel.requestEnd", self.outlet().kinds())

    def test_a_browser_that_waits_is_told_to_continue_and_the_host_is_not_asked(self) -> None:
        self.browser.dataReceived(
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        self.assertIn(b" 100 ", self.transport.take())
        names = [name.lower() for name, _ in self.outlet().sent[0]["reqLine"]["headers"]]
        self.assertNotIn("expect", names)

    def test_the_next_request_is_judged_by_its_own_host(self) -> None:
        self.browser.dataReceived(GET)
        self.ack(204)
        self.close()
        self.transport.take()
        self.browser.dataReceived(GET)
        self.assertEqual(self.outlet(2).kinds(), ["tunnel.open", "tunnel.requestEnd"])
        self.ack(204, number=2)
        self.close(number=2)
        self.transport.take()
        for host in (b"localhost:8789", b"evil.example:8789"):
            self.connect()
            self.browser.dataReceived(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            self.assertIn(b"HTTP/1.1 421 ", self.transport.take())
            self.assertTrue(self.transport.half_closed)
        self.assertNotIn("t3", self.link.wire.outlets)

    def test_pipelined_requests_wait_for_their_turn(self) -> None:
        self.browser.dataReceived(GET + GET)
        self.assertNotIn("t2", self.link.wire.outlets)
        self.assertEqual(self.transport.producerState, "paused")
        self.ack(204)
        self.close()
        self.assertIn("t2", self.link.wire.outlets)
        self.assertEqual(self.transport.producerState, "producing")

    def test_a_browser_that_leaves_closes_its_tunnel(self) -> None:
        self.browser.dataReceived(GET)
        self.lose()
        self.assertEqual(self.outlet().kinds()[-1], "tunnel.close")
        self.assertEqual(len(self.link.table), 0)
        self.ack()
        self.data(b"late")
        self.assertEqual(self.transport.take(), b"")

    def test_an_early_answer_ends_the_connection_but_not_at_once(self) -> None:
        self.browser.dataReceived(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\nab")
        self.ack(413, ("Content-Length", "0"))
        self.close()
        self.assertTrue(self.transport.half_closed)
        self.assertFalse(self.transport.aborted)
        self.browser.dataReceived(b"x" * 50)
        self.assertEqual(self.outlet().body(), b"ab")
        self.clock.advance(LINGER)
        self.assertTrue(self.transport.aborted)

    def test_an_idle_connection_is_ended_and_a_working_one_is_not(self) -> None:
        self.browser.dataReceived(GET)
        self.clock.advance(IDLE * 2)
        self.assertFalse(self.transport.lost)
        self.ack(204)
        self.close()
        self.clock.advance(IDLE)
        self.assertTrue(self.transport.lost)


class TruncationTests(ProxyCase):
    def test_a_response_cut_short_is_seen_to_be(self) -> None:
        for reason in ("reset by peer", "anything else"):
            self.setUp()
            self.browser.dataReceived(GET)
            self.ack()
            self.data(b"part")
            self.close(reason)
            self.assertTrue(self.transport.aborted)
            self.assertNotIn(b"\r\n0\r\n", self.transport.take())

    def test_a_lost_link_cuts_every_response_short(self) -> None:
        self.browser.dataReceived(GET)
        self.ack()
        self.data(b"part")
        self.link.table.lost()
        self.assertTrue(self.transport.aborted)

    def test_fewer_bytes_than_announced(self) -> None:
        self.browser.dataReceived(GET)
        self.ack(200, ("Content-Length", "10"))
        self.data(b"part")
        self.close()
        self.assertTrue(self.transport.aborted)

    def test_more_bytes_than_announced(self) -> None:
        self.browser.dataReceived(GET)
        self.ack(200, ("Content-Length", "2"))
        self.data(b"more")
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.outlet().kinds()[-1], "tunnel.close")


class ErrorTests(ProxyCase):
    def test_a_refused_tunnel_is_a_page_with_its_status(self) -> None:
        self.browser.dataReceived(GET.replace(b"\r\n\r\n", b"\r\nAccept: text/html\r\n\r\n"))
        self.refuse(503, "no preview <web> of this task")
        answer = self.transport.take()
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"))
        self.assertIn(b"text/html", answer)
        self.assertIn(b"No preview &lt;web&gt; of this task.", answer)
        self.assertTrue(self.transport.half_closed)
        self.assertEqual(self.outlet().kinds()[-1], "tunnel.close")

    def test_a_program_gets_plain_text(self) -> None:
        self.browser.dataReceived(GET)
        self.refuse(502, "connection refused")
        answer = self.transport.take()
        self.assertIn(b"text/plain", answer)
        self.assertIn(b"Connection refused.", answer)

    def test_a_status_that_is_no_error_becomes_502(self) -> None:
        self.browser.dataReceived(GET)
        self.refuse(200, "what?")
        self.assertIn(b"HTTP/1.1 502 ", self.transport.take())

    def test_a_tunnel_closed_before_its_answer(self) -> None:
        self.browser.dataReceived(GET)
        self.close("upstream closed")
        self.assertIn(b"HTTP/1.1 502 ", self.transport.take())

    def test_a_host_that_is_not_connected(self) -> None:
        self.browser.dataReceived(b"GET / HTTP/1.1\r\nHost: b-web.preview.localhost:8789\r\n\r\n")
        answer = self.transport.take()
        self.assertIn(b"HTTP/1.1 503 ", answer)
        self.assertIn(b"not connected", answer)

    def test_a_response_that_cannot_be_sent(self) -> None:
        for status, headers in (
            (200, [("X", "a\r\nInjected: 1")]),
            (200, [("Bad Name", "x")]),
            (200, [("Content-Length", "x")]),
            (199, []),
            (200, [("X", "\u20ac")]),
        ):
            self.setUp()
            self.browser.dataReceived(GET)
            self.ack(status, *headers)
            answer = self.transport.take()
            self.assertTrue(answer.startswith(b"HTTP/1.1 502 "), answer)
            self.assertNotIn(b"Injected", answer)
            self.assertEqual(self.outlet().kinds()[-1], "tunnel.close")

    def test_what_is_no_http(self) -> None:
        for data in (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"nonsense\r\n\r\n", b"x" * (MAX_HEAD + 10)):
            self.setUp()
            self.browser.dataReceived(data)
            self.assertRegex(self.transport.take(), rb"\AHTTP/1.1 4\d\d ")
            self.assertEqual(self.link.wire.outlets, {})

    @given(strategies.binary(max_size=300))
    def test_no_bytes_of_a_browser_raise(self, data: bytes) -> None:
        self.setUp()
        self.browser.dataReceived(GET[:20])
        self.browser.dataReceived(data)
        self.lose()
        self.assertEqual(len(self.link.table), 0)


class UpgradeTests(ProxyCase):
    def open(self, **ack: Any) -> None:
        self.browser.dataReceived(UPGRADE)
        self.ack(101, ("Upgrade", "websocket"), ("Connection", "Upgrade"), text="Switching Protocols")

    def test_an_upgrade_is_a_raw_tunnel_with_all_headers(self) -> None:
        self.open()
        opened = self.outlet().sent[0]
        self.assertTrue(opened["upgrade"])
        # A raw stream has no request that could end.
        self.assertEqual(self.outlet().kinds(), ["tunnel.open"])
        self.assertEqual(
            [name for name, _ in opened["reqLine"]["headers"]],
            ["Host", "Connection", "Upgrade", "Sec-WebSocket-Extensions", "Origin"],
        )
        self.assertEqual(
            self.transport.take(),
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        )

    def test_bytes_go_both_ways_as_they_are(self) -> None:
        self.open()
        self.transport.take()
        self.data(b"\x81\x02hi")
        self.browser.dataReceived(b"\x81\x82....")
        self.assertEqual(self.transport.take(), b"\x81\x02hi")
        self.assertEqual(self.outlet().body(), b"\x81\x82....")

    def test_bytes_before_the_agreement_are_not_lost(self) -> None:
        self.browser.dataReceived(UPGRADE + b"early")
        self.assertEqual(self.transport.producerState, "paused")
        self.assertEqual(self.outlet().body(), b"")
        self.ack(101, text="Switching Protocols")
        self.assertEqual(self.outlet().body(), b"early")
        self.assertEqual(self.transport.producerState, "producing")

    def test_an_idle_pipe_stays(self) -> None:
        self.open()
        self.clock.advance(24 * 3600)
        self.assertFalse(self.transport.lost or self.transport.aborted)

    def test_an_upstream_that_closes_ends_the_pipe_after_its_bytes(self) -> None:
        self.open()
        self.data(b"bye")
        self.close("upstream closed")
        self.assertTrue(self.transport.take().endswith(b"bye"))
        self.assertTrue(self.transport.lost)
        self.assertFalse(self.transport.aborted)

    def test_a_refused_upgrade_is_the_connections_last_answer(self) -> None:
        self.browser.dataReceived(UPGRADE)
        self.ack(403, ("Content-Length", "2"), ("Connection", "keep-alive"), text="Forbidden")
        self.data(b"no")
        self.browser.dataReceived(GET)
        self.assertEqual(
            self.transport.take(),
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
        )
        self.assertEqual(self.outlet().body(), b"")
        self.lose()
        self.assertEqual(self.outlet().kinds()[-1], "tunnel.close")

    def test_a_head_that_would_inject_is_refused(self) -> None:
        self.browser.dataReceived(UPGRADE)
        self.ack(101, text="Fine\r\nInjected: 1")
        answer = self.transport.take()
        self.assertIn(b"HTTP/1.1 502 ", answer)
        self.assertNotIn(b"Injected", answer)


class FlowTests(ProxyCase):
    def opened(self) -> None:
        self.browser.dataReceived(GET)
        self.ack()
        self.transport.take()

    def test_a_browser_that_does_not_read_gets_no_more_until_it_does(self) -> None:
        self.opened()
        producer: Any = self.transport.producer
        producer.pauseProducing()
        self.data(b"one")
        self.data(b"two")
        self.assertEqual(self.transport.take(), b"")
        producer.resumeProducing()
        self.assertEqual(self.transport.take(), b"6\r\nonetwo\r\n")

    def test_the_end_waits_for_what_is_kept(self) -> None:
        self.opened()
        producer: Any = self.transport.producer
        producer.pauseProducing()
        self.data(b"one")
        self.close()
        # The response is here in full: the link may go now.
        self.link.table.lost()
        self.assertFalse(self.transport.aborted)
        producer.resumeProducing()
        self.assertTrue(self.transport.take().endswith(b"one\r\n0\r\n\r\n"))

    def test_beyond_its_bound_a_browser_holds_the_link_and_lets_it_go(self) -> None:
        self.opened()
        producer: Any = self.transport.producer
        producer.pauseProducing()
        piece = b"x" * (1 << 20)
        for _ in range(HIGH_WATER >> 20):
            self.data(piece)
        self.assertEqual(self.link.input.reasons, set())
        self.data(b"y")
        self.assertEqual(len(self.link.input.reasons), 1)
        producer.resumeProducing()
        self.assertEqual(self.link.input.reasons, set())
        self.clock.advance(STALL_LIMIT * 2)
        self.assertFalse(self.transport.aborted)

    def test_a_browser_that_stalls_loses_its_tunnel_and_no_other(self) -> None:
        self.opened()
        producer: Any = self.transport.producer
        producer.pauseProducing()
        stalled, first = self.transport, self.outlet()
        self.data(b"x" * (HIGH_WATER + 1))
        self.connect()
        self.browser.dataReceived(GET)
        self.clock.advance(STALL_LIMIT)
        self.assertTrue(stalled.aborted)
        self.assertEqual(first.kinds()[-1], "tunnel.close")
        self.assertEqual(self.link.input.reasons, set())
        self.assertEqual(len(self.link.table), 1)

    def test_a_browser_that_leaves_while_it_holds_the_link_lets_it_go(self) -> None:
        self.opened()
        producer: Any = self.transport.producer
        producer.pauseProducing()
        self.data(b"x" * (HIGH_WATER + 1))
        self.lose()
        self.assertEqual(self.link.input.reasons, set())
        self.clock.advance(STALL_LIMIT)

    def test_an_upload_pauses_with_its_outlet(self) -> None:
        self.browser.dataReceived(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\n")
        upload: Any = self.outlet().producer
        upload.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        upload.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")

    def test_a_paused_upload_is_read_again_after_its_tunnel(self) -> None:
        self.browser.dataReceived(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nbody")
        upload: Any = self.outlet().producer
        upload.pauseProducing()
        self.ack(204)
        self.close()
        self.assertEqual(self.transport.producerState, "producing")
        self.browser.dataReceived(GET)
        self.assertIn("t2", self.link.wire.outlets)
