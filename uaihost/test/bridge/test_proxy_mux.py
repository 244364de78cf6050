"""A browser's connection over mux.1: what revision 1 could not say."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.bridge.names import Names
from uaihost.bridge.proxy import LINGER, BrowserConnection
from uaihost.test.bridge.fakes import BrowserTransport, FakeStream, Link
from uaihost.test.bridge.test_names import Known, known
from uaihost.wire import mux
from uaihost.wire.frames import Header

HOST = b"Host: a-web.preview.localhost:8789\r\n"
GET = b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n"
UPGRADE = b"GET /ws HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class MuxCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.link = Link(self.clock)
        self.broken: list[str] = []
        self.link.table.agree(self.broken.append)
        self.browser = BrowserConnection(Names(8789, Known(known("a", "web"))), self.link, self.clock)
        self.transport = BrowserTransport()
        self.browser.makeConnection(self.transport)

    def post(self, *headers: bytes, body: bytes = b"", version: bytes = b"1.1") -> None:
        lines = b"".join(header + b"\r\n" for header in headers)
        self.browser.dataReceived(b"POST /up HTTP/" + version + b"\r\n" + HOST + lines + b"\r\n" + body)

    def outlet(self, number: int = 1) -> FakeStream:
        return self.link.wire.streams[number]

    def hear(self, *frames: bytes) -> None:
        self.link.table.binary(b"".join(frames))

    def head(self, status: int = 200, *headers: Header, number: int = 1) -> bytes:
        return mux.head_frame(number, mux.Head(True, status, "Text", list(headers)))

    def opened(self, number: int = 1) -> mux.Open:
        for kind, tunnel, payload in self.link.wire.urgents:
            if (kind, tunnel) == (mux.OPEN, number):
                return mux.read_open(payload)
        raise AssertionError(f"no tunnel {number} was opened")

    def resets(self) -> list[tuple[int, int]]:
        return [
            (tunnel, mux.read_reset(payload).code)
            for kind, tunnel, payload in self.link.wire.urgents
            if kind == mux.RESET
        ]


class ResponseTests(MuxCase):
    def test_requests_follow_one_another(self) -> None:
        for number in (1, 2):
            self.browser.dataReceived(GET)
            self.assertEqual(self.outlet(number).sent, [(mux.END, b"")])
            self.hear(
                self.head(200, ("Content-Length", "2"), number=number), mux.frame(mux.DATA, number, b"ok")
            )
            self.hear(mux.end_frame(number))
            self.assertEqual(self.transport.take(), b"HTTP/1.1 200 Text\r\nContent-Length: 2\r\n\r\nok")
        self.assertFalse(self.transport.lost or self.transport.half_closed)
        self.assertEqual((len(self.link.table), self.resets()), (0, []))

    def test_trailers_follow_a_chunked_body_and_none_other(self) -> None:
        trailers = [("Digest", "x"), ("Content-Length", "7"), ("Transfer-Encoding", "gzip")]
        for request, headers, end in (
            (GET, [], b"2\r\nok\r\n0\r\nDigest: x\r\n\r\n"),
            (GET, [("Content-Length", "2")], b"\r\n\r\nok"),
            (GET.replace(b"1.1", b"1.0", 1), [], b"\r\n\r\nok"),
        ):
            self.setUp()
            self.browser.dataReceived(request)
            self.hear(self.head(200, *headers), mux.frame(mux.DATA, 1, b"ok"), mux.end_frame(1, trailers))
            self.assertTrue(self.transport.take().endswith(end))

    def test_trailers_that_cannot_be_cut_the_response_short(self) -> None:
        self.browser.dataReceived(GET)
        self.hear(self.head(), mux.frame(mux.DATA, 1, b"ok"), mux.end_frame(1, [("A", "b\r\nC: d")]))
        self.assertTrue(self.transport.aborted)
        self.assertNotIn(b"C: d", self.transport.take())

    def test_a_reset_is_seen_by_the_browser(self) -> None:
        for code in (mux.NOT_NEEDED, mux.FAILED, 999):
            self.setUp()
            self.browser.dataReceived(GET)
            self.hear(self.head(), mux.frame(mux.DATA, 1, b"part"), mux.reset_frame(1, code, "why"))
            self.assertTrue(self.transport.aborted)
            self.assertNotIn(b"\r\n0\r\n", self.transport.take())

    def test_a_reset_before_the_answer_is_a_page(self) -> None:
        self.browser.dataReceived(GET)
        self.hear(mux.reset_frame(1, mux.CANCELLED, "the task stopped"))
        answer = self.transport.take()
        self.assertIn(b"HTTP/1.1 502 ", answer)
        self.assertIn(b"The task stopped.", answer)

    def test_a_refusal_is_a_page_and_nothing_more_is_said_of_the_tunnel(self) -> None:
        self.browser.dataReceived(GET)
        self.hear(mux.head_frame(1, mux.Head(False, 503, message="no preview web")))
        self.assertIn(b"HTTP/1.1 503 ", self.transport.take())
        self.assertEqual((self.resets(), len(self.link.table)), ([], 0))

    def test_a_response_that_cannot_be_sent_is_reset(self) -> None:
        for head in (
            mux.Head(True, 200, "OK", [("X", "a\r\nY: 1")]),
            mux.Head(True, 200, "OK\r\nY: 1", []),
            mux.Head(True, 101, "Switching Protocols", []),
            mux.Head(True, 7, "OK", []),
        ):
            self.setUp()
            self.browser.dataReceived(GET)
            self.hear(mux.head_frame(1, head))
            answer = self.transport.take()
            self.assertTrue(answer.startswith(b"HTTP/1.1 502 "), answer)
            self.assertNotIn(b"Y: 1", answer)
            self.assertEqual(self.resets(), [(1, mux.CANCELLED)])


class InterimTests(MuxCase):
    def test_a_browser_that_waits_hears_from_the_upstream_itself(self) -> None:
        self.post(b"Content-Length: 2", b"Expect: 100-continue")
        self.assertEqual(self.transport.take(), b"")
        self.assertIn(("Expect", "100-continue"), self.opened().reqLine.headers)
        self.hear(self.head(103, ("Link", "</a.css>")))
        self.assertEqual(self.transport.take(), b"HTTP/1.1 103 Text\r\nLink: </a.css>\r\n\r\n")
        self.hear(self.head(100))
        self.assertEqual(self.transport.take(), b"HTTP/1.1 100 Text\r\n\r\n")
        self.browser.dataReceived(b"ok")
        self.assertEqual(self.outlet().sent, [b"ok", (mux.END, b"")])
        self.hear(self.head(204), mux.end_frame(1))
        self.assertIn(b" 204 ", self.transport.take())

    def test_a_browser_that_does_not_wait_or_is_old_hears_nothing(self) -> None:
        self.post(b"Content-Length: 2")
        self.hear(self.head(100))
        self.assertEqual(self.transport.take(), b"")
        self.setUp()
        self.browser.dataReceived(GET.replace(b"1.1", b"1.0", 1))
        self.hear(self.head(103))
        self.assertEqual(self.transport.take(), b"")

    def test_one_that_cannot_be_sent_is_left_out(self) -> None:
        self.browser.dataReceived(GET)
        self.hear(self.head(103, ("X", "a\r\nY: 1")), self.head(204), mux.end_frame(1))
        self.assertTrue(self.transport.take().startswith(b"HTTP/1.1 204 "))


class UploadTests(MuxCase):
    def test_a_response_before_the_upload_is_through_leaves_both_going(self) -> None:
        self.post(b"Content-Length: 6", body=b"one")
        self.hear(self.head(200, ("Content-Length", "2")), mux.frame(mux.DATA, 1, b"ok"), mux.end_frame(1))
        self.assertTrue(self.transport.take().endswith(b"ok"))
        self.browser.dataReceived(b"two")
        self.assertEqual(self.outlet().sent, [b"one", b"two", (mux.END, b"")])
        self.browser.dataReceived(GET)
        self.assertEqual(self.outlet(2).sent, [(mux.END, b"")])
        self.assertFalse(self.transport.lost or self.transport.half_closed)

    def test_an_upload_that_nobody_wants_any_more_ends_the_connection_but_not_at_once(self) -> None:
        self.post(b"Content-Length: 100", body=b"ab")
        upload: Any = self.outlet().producer
        upload.pauseProducing()
        self.hear(
            self.head(413, ("Content-Length", "0")), mux.end_frame(1), mux.reset_frame(1, mux.NOT_NEEDED, "")
        )
        self.assertIn(b" 413 ", self.transport.take())
        self.assertEqual((self.transport.half_closed, self.transport.aborted), (True, False))
        # What still comes is read, so that the answer is not lost with it, and thrown away.
        self.assertEqual(self.transport.producerState, "producing")
        self.browser.dataReceived(b"x" * 50)
        self.assertEqual(self.outlet().body(), b"ab")
        self.clock.advance(LINGER)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.resets(), [])

    def test_a_browser_that_closes_while_its_answer_lingers_is_let_go(self) -> None:
        self.post(b"Content-Length: 100", body=b"ab")
        self.hear(
            self.head(413, ("Content-Length", "0")), mux.end_frame(1), mux.reset_frame(1, mux.NOT_NEEDED, "")
        )
        self.browser.readConnectionLost()
        self.assertEqual((self.transport.lost, self.transport.aborted), (True, False))

    def test_a_browser_that_leaves_resets_its_upload(self) -> None:
        self.post(b"Content-Length: 100", body=b"ab")
        self.browser.readConnectionLost()
        self.assertEqual(self.resets(), [(1, mux.CANCELLED)])
        self.assertTrue(self.outlet().discarded)
        self.assertTrue(self.transport.lost)


class PipeTests(MuxCase):
    def setUp(self) -> None:
        super().setUp()
        self.browser.dataReceived(UPGRADE)
        self.hear(self.head(101, ("Upgrade", "websocket")))
        self.transport.take()

    def test_the_browsers_half_ends_and_the_other_goes_on(self) -> None:
        self.browser.dataReceived(b"last words")
        self.browser.readConnectionLost()
        self.assertEqual(self.outlet().sent, [b"last words", (mux.END, b"")])
        self.hear(mux.frame(mux.DATA, 1, b"an answer"))
        self.assertEqual(self.transport.take(), b"an answer")
        self.assertFalse(self.transport.lost)
        self.hear(mux.end_frame(1))
        self.assertEqual((self.transport.lost, self.transport.aborted), (True, False))
        self.assertEqual((len(self.link.table), self.resets()), (0, []))

    def test_the_hosts_half_ends_and_the_other_goes_on(self) -> None:
        self.hear(mux.frame(mux.DATA, 1, b"last words"), mux.end_frame(1))
        self.assertEqual(self.transport.take(), b"last words")
        self.assertEqual((self.transport.half_closed, self.transport.lost), (True, False))
        self.browser.dataReceived(b"still here")
        self.assertEqual(self.outlet().body(), b"still here")
        self.browser.readConnectionLost()
        self.assertTrue(self.transport.lost)
        self.assertEqual((len(self.link.table), self.resets()), (0, []))

    def test_a_reset_ends_it_at_once(self) -> None:
        self.hear(mux.reset_frame(1, mux.FAILED, "died"))
        self.assertTrue(self.transport.aborted)

    def test_a_reset_after_the_hosts_half_lets_go(self) -> None:
        self.hear(mux.end_frame(1), mux.reset_frame(1, mux.NOT_NEEDED, ""))
        self.assertEqual((self.transport.lost, self.transport.aborted), (True, False))

    def test_a_refused_upgrade_is_the_connections_last_answer(self) -> None:
        super().setUp()
        self.browser.dataReceived(UPGRADE)
        self.hear(self.head(403, ("Content-Length", "2")), mux.frame(mux.DATA, 1, b"no"), mux.end_frame(1))
        self.assertTrue(self.transport.take().endswith(b"Connection: close\r\n\r\nno"))
        self.assertEqual((self.transport.lost, len(self.link.table)), (True, 0))
