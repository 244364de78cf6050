"""Plain tunnels: one HTTP exchange each, over connections that are kept."""

from __future__ import annotations

from twisted.internet.error import ConnectError, ConnectionLost, ConnectionRefusedError

from uaihost.test.support import given, strategies
from uaihost.test.tunnels.memory import MemoryTestCase, Wire
from uaihost.tunnels.pool import IDLE_LIMIT, IDLE_SECONDS, LINGER
from uaihost.tunnels.upstream import INTERIMS
from uaihost.wire.frames import TunnelAck, TunnelClose

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
ENDED = TunnelClose("a", "upstream ended")


def head(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


class ResponseTests(MemoryTestCase):
    def requested(self, method: str = "GET") -> Wire:
        """A server that has received the request."""
        self.open("a", method)
        self.end()
        wire = self.connect()
        self.assertTrue(wire.take().startswith(method.encode() + b" / HTTP/1.1\r\nHost: 127.0.0.1\r\n"))
        return wire

    def test_a_response_of_known_length(self) -> None:
        wire = self.requested()
        wire.send(b"HTTP/1.1 200 Fine\r\nX-a: 1\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhe")
        ack = TunnelAck("a", True, 200, statusText="Fine", headers=[("X-a", "1"), ("Content-Length", "5")])
        self.assertEqual(self.link.frames(), [ack])
        wire.send(b"llo")
        self.assertEqual((self.link.data("a"), self.last()), (b"hello", ENDED))
        self.assertEqual(self.link.order(), ["TunnelAck", "data", "data", "TunnelClose"])
        self.assertEqual(self.table.open_tunnels, 0)
        self.assertEqual((self.table.traffic.sent, self.table.traffic.received), (5, 0))

    def test_the_bytes_of_a_body_of_known_length_are_passed_on_uncopied(self) -> None:
        wire = self.requested()
        wire.send(head(b"HTTP/1.1 200 OK", b"Content-Length: 1000"))
        piece = b"x" * 500
        wire.send(piece)
        sent = self.link.sent[-1]
        assert isinstance(sent, tuple)
        self.assertIs(sent[1], piece)

    def test_a_chunked_response(self) -> None:
        wire = self.requested()
        wire.send(head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked") + b"3;x=y\r\none\r\n")
        wire.send(b"3\r\ntwo\r\n5\r\nthree\r\n")
        self.assertEqual(
            [item[1] for item in self.link.sent if isinstance(item, tuple)], [b"one", b"twothree"]
        )
        wire.send(b"0\r\nTrailer: dropped\r\n\r\n")
        self.assertEqual((self.link.data("a"), self.last()), (b"onetwothree", ENDED))

    def test_a_response_that_ends_with_the_connection(self) -> None:
        wire = self.requested()
        wire.send(b"HTTP/1.0 200 OK\r\n\r\nfirst ")
        wire.send(b"second")
        wire.close()
        self.assertEqual((self.link.data("a"), self.last()), (b"first second", ENDED))

    def test_responses_without_a_body(self) -> None:
        for method, answer in (
            ("HEAD", head(b"HTTP/1.1 200 OK", b"Content-Length: 6")),
            ("HEAD", head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked")),
            ("GET", head(b"HTTP/1.1 204 No Content")),
            ("GET", head(b"HTTP/1.1 304 Not Modified", b"Content-Length: 6")),
            ("GET", head(b"HTTP/1.1 200 OK", b"Content-Length: 0")),
        ):
            self.setUp()
            wire = self.requested(method)
            wire.send(answer)
            self.assertEqual(self.link.order(), ["TunnelAck", "TunnelClose"], answer)
            self.open("b")
            self.assertEqual(self.connects, 1, "the connection is used again")

    def test_interim_responses_are_skipped(self) -> None:
        wire = self.requested()
        wire.send(head(b"HTTP/1.1 100 Continue"))
        wire.send(head(b"HTTP/1.1 103 Early Hints", b"Link: </x>") + OK)
        self.assertEqual(self.link.order(), ["TunnelAck", "data", "TunnelClose"])
        self.assertEqual(self.link.frames()[0].status, 200)

    def test_interim_responses_without_end_are_refused(self) -> None:
        wire = self.requested()
        wire.send(head(b"HTTP/1.1 102 Processing") * INTERIMS)
        self.assertEqual(self.link.frames(), [])
        wire.send(head(b"HTTP/1.1 102 Processing"))
        [ack] = self.link.frames()
        self.assertEqual((ack.ok, ack.status), (False, 502))
        self.assertIn("interim", ack.message)

    def test_broken_responses_before_the_ack(self) -> None:
        for answer in (
            b"this is no HTTP\r\n\r\n",
            head(b"HTTP/1.1 101 Switching Protocols", b"Upgrade: x"),
            head(b"HTTP/1.1 200 OK", b"Content-Length: 1", b"Content-Length: 2"),
            head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: gzip"),
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
        ):
            self.setUp()
            wire = self.requested()
            wire.send(answer)
            [ack] = self.link.frames()
            self.assertEqual((ack.ok, ack.status), (False, 502), answer[:40])
            self.assertLess(len(ack.message), 300)
            self.assertTrue(wire.aborted)

    def test_broken_responses_after_the_ack(self) -> None:
        for start, more in (
            (head(b"HTTP/1.1 200 OK", b"Content-Length: 10") + b"half", None),
            (head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked") + b"4\r\nhalf\r\n", None),
            (head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked") + b"4\r\nhalf\r\n", b"nonsense\r\n"),
            (head(b"HTTP/1.0 200 OK") + b"half", ConnectionLost()),
        ):
            self.setUp()
            wire = self.requested()
            wire.send(start)
            if isinstance(more, bytes):
                wire.send(more)
            else:
                wire.close(more)
            self.assertEqual(self.link.order(), ["TunnelAck", "data", "TunnelClose"], start)
            self.assertEqual(self.link.data("a"), b"half")
            self.assertNotEqual(self.last().reason, "upstream ended")

    def test_a_server_that_closes_without_an_answer(self) -> None:
        wire = self.requested()
        wire.close()
        [ack] = self.link.frames()
        self.assertEqual((ack.ok, ack.status), (False, 502))
        self.assertIn("before it answered", ack.message)
        self.assertEqual(self.connects, 1, "it was a fresh connection: no retry")

    def test_nothing_listens(self) -> None:
        for error in (ConnectionRefusedError(), ConnectError("too many open files")):
            self.setUp()
            self.open()
            self.refuse(error)
            [ack] = self.link.frames()
            self.assertEqual((ack.ok, ack.status), (False, 502))
            self.assertIn("127.0.0.1:3000", ack.message)

    def test_a_connection_that_is_never_made_is_given_up(self) -> None:
        self.open()
        *_, timeout, _ = self.reactor.tcpClients[-1]
        self.assertEqual(timeout, 10.0)
        self.close(reason="enough")
        self.assertTrue(self.reactor.connectors[-1].stoppedConnecting)
        self.assertEqual(self.link.frames(), [TunnelClose("a", "enough")])

    @given(strategies.lists(strategies.integers(1, 60), max_size=8), strategies.booleans())
    def test_a_response_may_come_in_any_pieces(self, cuts: list[int], chunked: bool) -> None:
        self.setUp()
        wire = self.requested()
        body = b"4\r\nbody\r\n1\r\n!\r\n0\r\n\r\n" if chunked else b"body!"
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 5"
        answer = head(b"HTTP/1.1 100 Continue") + head(b"HTTP/1.1 200 OK", framing) + body
        for cut in cuts:
            if answer:
                wire.send(answer[:cut])
                answer = answer[cut:]
        if answer:
            wire.send(answer)
        self.assertEqual((self.link.data("a"), self.last()), (b"body!", ENDED))
        self.open("b")
        self.assertEqual(self.connects, 1, "the connection is used again")


class RequestTests(MemoryTestCase):
    def test_the_socket_is_tuned(self) -> None:
        self.open()
        wire = self.connect()
        self.assertTrue(wire.nodelay)
        self.assertGreaterEqual(wire.bufferSize, 128 * 1024)

    def test_a_request_whose_body_never_comes_is_not_ended(self) -> None:
        for headers in ([], [("Content-Length", "3")], [("Transfer-Encoding", "chunked")]):
            self.setUp()
            self.open("a", "POST", *headers)
            wire = self.connect()
            self.assertFalse(wire.take().endswith(b"0\r\n\r\n"))

    def test_a_body_of_known_length(self) -> None:
        self.open("a", "POST", ("Content-Length", "6"))
        self.table.deliver("a", b"one")
        wire = self.connect()
        request = wire.take()
        self.assertIn(b"Content-Length: 6\r\n", request)
        self.assertTrue(request.endswith(b"\r\n\r\none"))
        self.table.deliver("a", b"two")
        self.end()
        self.assertEqual(wire.take(), b"two")
        self.assertEqual(self.table.traffic.received, 6)

    def test_a_body_of_unknown_length(self) -> None:
        for headers in ([], [("Transfer-Encoding", "chunked")]):
            for method in ("POST", "GET"):
                self.setUp()
                self.open("a", method, *headers)
                wire = self.connect()
                self.table.deliver("a", b"hello")
                request = wire.take()
                self.assertEqual(request.lower().count(b"transfer-encoding: chunked\r\n"), 1)
                self.assertTrue(request.endswith(b"\r\n\r\n5\r\nhello\r\n"), request)
                self.end()
                self.assertEqual(wire.take(), b"0\r\n\r\n")

    def test_a_request_without_a_body_says_nothing_of_one(self) -> None:
        self.open("a", "GET")
        self.end()
        request = self.connect().take().lower()
        self.assertNotIn(b"content-length", request)
        self.assertNotIn(b"transfer-encoding", request)

    def test_a_post_without_a_body_says_so(self) -> None:
        self.open("a", "POST")
        self.end()
        self.assertIn(b"Content-Length: 0\r\n", self.connect().take())

    def test_a_body_that_does_not_keep_its_length(self) -> None:
        for pieces, word in (([b"too long"], "longer"), ([b"s"], "shorter")):
            self.setUp()
            self.open("a", "POST", ("Content-Length", "3"))
            wire = self.connect()
            for piece in pieces:
                self.table.deliver("a", piece)
            self.end()
            ack = self.last()
            self.assertEqual((ack.ok, ack.status), (False, 502))
            self.assertIn(word, ack.message)
            self.assertTrue(wire.aborted)

    def test_expect_100_continue_does_not_stop_the_body(self) -> None:
        self.open("a", "POST", ("Content-Length", "3"), ("Expect", "100-continue"))
        wire = self.connect()
        self.assertIn(b"Expect: 100-continue\r\n", wire.take())
        wire.send(head(b"HTTP/1.1 100 Continue"))
        self.table.deliver("a", b"abc")
        self.end()
        self.assertEqual(wire.take(), b"abc")
        wire.send(OK)
        self.assertEqual(self.last(), ENDED)

    def test_a_response_that_ends_before_the_request_does(self) -> None:
        self.open("a", "POST", ("Content-Length", "9"))
        wire = self.connect()
        self.table.deliver("a", b"abc")
        wire.send(head(b"HTTP/1.1 413 Too Large", b"Content-Length: 0"))
        self.assertEqual(self.link.order(), ["TunnelAck", "TunnelClose"])
        self.assertTrue(wire.aborted, "the connection is out of step")
        self.table.deliver("a", b"def")
        self.end()
        self.close()
        self.assertEqual(self.last(), TunnelClose("a"))
        self.open("b")
        self.assertEqual(self.connects, 2)

    def test_an_answer_that_goes_on_while_the_request_does(self) -> None:
        self.open("a", "POST", ("Transfer-Encoding", "chunked"))
        wire = self.connect()
        wire.send(head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked"))
        wire.take()
        for piece in (b"x", b"yy"):
            self.table.deliver("a", piece)
            self.assertEqual(wire.take(), b"%d\r\n%s\r\n" % (len(piece), piece))
            wire.send(b"%d\r\n%s\r\n" % (len(piece), piece))
        self.end()
        wire.send(b"0\r\n\r\n")
        self.assertEqual((self.link.data("a"), self.last()), (b"xyy", ENDED))
        self.assertFalse(wire.aborted)

    def test_the_bridge_is_slowed_down_by_a_slow_server(self) -> None:
        self.open("a", "POST", ("Transfer-Encoding", "chunked"))
        wire = self.connect()
        wire.take()
        wire.full()
        for _ in range(17):
            self.table.deliver("a", b"x" * 65536)
        self.assertEqual((wire.take(), len(self.link.holds)), (b"", 1))
        self.assertGreater(self.table.waiting, 1 << 20)
        wire.drained()
        self.assertEqual((len(wire.take()) > 17 * 65536, self.link.holds, self.table.waiting), (True, [], 0))

    def test_a_server_that_takes_nothing_is_given_up(self) -> None:
        self.open("a", "POST", ("Transfer-Encoding", "chunked"))
        wire = self.connect()
        wire.full()
        self.table.deliver("a", b"x" * (1 << 20))
        self.reactor.advance(30)
        self.assertTrue(wire.aborted)
        [ack] = self.link.frames()
        self.assertEqual((ack.ok, ack.status, self.link.holds), (False, 502, []))
        self.assertIn("30 s", ack.message)


class FlowTests(MemoryTestCase):
    def test_the_server_is_read_only_while_the_link_has_room(self) -> None:
        self.open()
        self.end()
        wire = self.connect()
        wire.send(head(b"HTTP/1.1 200 OK", b"Content-Length: 1000000"))
        self.link.block()
        wire.send(b"x" * 200_000)
        self.assertEqual(wire.producerState, "producing")
        wire.send(b"x" * 200_000)
        self.assertEqual(wire.producerState, "paused")
        self.link.unblock()
        self.assertEqual(wire.producerState, "producing")
        wire.send(b"x" * 600_000)
        self.assertEqual((len(self.link.data("a")), self.last()), (1_000_000, ENDED))

    def test_an_idle_connection_is_read_even_if_its_last_user_was_held(self) -> None:
        self.open()
        self.end()
        wire = self.connect()
        self.link.block()
        wire.send(head(b"HTTP/1.1 200 OK", b"Content-Length: 300000") + b"x" * 299_999)
        self.assertEqual(wire.producerState, "paused")
        # What the reactor had read already still arrives.
        wire.protocol.dataReceived(b"y")
        self.assertEqual(wire.producerState, "producing")
        self.link.unblock()
        self.assertEqual(self.link.order()[-1], "TunnelClose")
        self.assertEqual(len(self.link.data("a")), 300_000)

    def test_the_close_waits_for_the_data(self) -> None:
        self.open()
        self.end()
        wire = self.connect()
        self.link.block()
        wire.send(OK)
        self.assertEqual((self.link.sent, self.table.open_tunnels), ([], 0))
        self.link.unblock()
        self.assertEqual(self.link.order(), ["TunnelAck", "data", "TunnelClose"])


class PoolTests(MemoryTestCase):
    def exchange(self, tunnel_id: str, answer: bytes = OK, method: str = "GET") -> Wire:
        """A whole exchange over a fresh connection."""
        self.open(tunnel_id, method)
        self.end(tunnel_id)
        wire = self.connect()
        wire.take()
        wire.send(answer)
        return wire

    def test_a_connection_is_used_again(self) -> None:
        wire = self.exchange("a")
        self.open("b", url="/again")
        self.end("b")
        self.assertEqual(self.connects, 1)
        self.assertTrue(wire.take().startswith(b"GET /again "))
        wire.send(OK)
        self.assertEqual((self.link.data("b"), self.last().tunnelId), (b"ok", "b"))

    def test_connections_that_are_not_used_again(self) -> None:
        for answer in (
            head(b"HTTP/1.1 200 OK", b"Content-Length: 0", b"Connection: close"),
            head(b"HTTP/1.0 200 OK", b"Content-Length: 0"),
            EMPTY + b"more than announced",
            head(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked") + b"0\r\n\r\nmore",
        ):
            self.setUp()
            wire = self.exchange("a", answer)
            self.assertTrue(wire.disconnecting, answer)
            self.assertEqual(self.last(), ENDED)
            self.assertFalse(wire.aborted)
            self.reactor.advance(LINGER)
            self.assertTrue(wire.aborted, "a server that takes nothing more keeps its connection")
            self.open("b")
            self.assertEqual(self.connects, 2)

    def test_another_address_gets_another_connection(self) -> None:
        self.exchange("a")
        self.targets.set_task("t", None, {"web": self.targets.resolve("t", "editor", None)})  # type: ignore[dict-item]
        self.open("b")
        self.assertEqual(self.connects, 2)

    def test_a_request_that_must_not_be_repeated_gets_a_fresh_connection(self) -> None:
        self.exchange("a")
        self.open("b", "POST", ("Content-Length", "1"))
        self.assertEqual(self.connects, 2)

    def test_an_idle_connection_is_dropped_after_a_while(self) -> None:
        wire = self.exchange("a")
        self.reactor.advance(IDLE_SECONDS - 0.1)
        self.assertFalse(wire.aborted)
        self.reactor.advance(0.1)
        self.assertTrue(wire.aborted)
        self.open("b")
        self.assertEqual(self.connects, 2)

    def test_an_idle_connection_that_ends_or_speaks_is_forgotten(self) -> None:
        self.exchange("a").close()
        wire = self.exchange("b")
        wire.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        self.assertTrue(wire.aborted)
        self.assertEqual(self.connects, 2)
        self.open("c")
        self.assertEqual(self.connects, 3)

    def test_only_so_many_are_kept(self) -> None:
        wires = []
        for number in range(IDLE_LIMIT + 3):
            self.open(f"t{number}")
            self.end(f"t{number}")
        for number in range(IDLE_LIMIT + 3):
            wires.append(self.connect(number))
        for wire in wires:
            wire.send(OK)
        self.assertEqual([wire.aborted for wire in wires], [True] * 3 + [False] * IDLE_LIMIT)

    def test_a_dead_connection_is_replaced_once(self) -> None:
        wire = self.exchange("a")
        self.open("b")
        self.end("b")
        request = wire.take()
        wire.close(ConnectionLost())
        self.assertEqual(self.connects, 2)
        fresh = self.connect()
        self.assertEqual(fresh.take(), request)
        fresh.close(ConnectionLost())
        self.assertEqual(self.connects, 2)
        self.assertEqual((self.last().ok, self.last().status), (False, 502))

    def test_after_the_replacement_everything_works(self) -> None:
        wire = self.exchange("a")
        self.open("b", "PUT")
        wire.close()
        fresh = self.connect()
        self.table.deliver("b", b"hello")
        self.end("b")
        self.assertTrue(fresh.take().endswith(b"5\r\nhello\r\n0\r\n\r\n"))
        fresh.send(OK)
        self.assertEqual((self.link.data("b"), self.last().reason), (b"ok", "upstream ended"))

    def test_a_farewell_before_the_request_is_no_answer(self) -> None:
        wire = self.exchange("a")
        self.open("b")
        wire.send(head(b"HTTP/1.1 408 Request Timeout", b"Content-Length: 0"))
        self.assertTrue(wire.aborted)
        self.end("b")
        fresh = self.connect()
        self.assertTrue(fresh.take().startswith(b"GET / "))
        fresh.send(OK)
        self.assertEqual(self.last().tunnelId, "b")
        self.assertEqual(
            [frame.status for frame in self.link.frames() if isinstance(frame, TunnelAck)], [200] * 2
        )

    def test_no_second_try_after_a_byte_of_the_answer_or_of_the_body(self) -> None:
        for answered in (True, False):
            self.setUp()
            wire = self.exchange("a")
            self.open("b", "GET")
            if answered:
                self.end("b")
                wire.send(b"H")
            else:
                self.table.deliver("b", b"body")
            wire.close(ConnectionLost())
            self.assertEqual(self.connects, 1)
            self.assertEqual((self.last().ok, self.last().status), (False, 502))
