"""mux.1 at the host: frames of the bridge in, frames of the host out."""

from __future__ import annotations

from typing import Any

from uaihost.test.support import given, strategies
from uaihost.test.tunnels.memory import MemoryTestCase, Wire
from uaihost.tunnels.streams import HELD, LINK_LIMIT, STALL_LIMIT, TUNNEL_LIMIT
from uaihost.wire import mux
from uaihost.wire.frames import Header, RequestLine

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"


class StreamsTestCase(MemoryTestCase):
    def say(self, *frames: bytes) -> None:
        """A message of the bridge."""
        self.table.message(b"".join(frames))

    def ask(
        self,
        number: int,
        method: str = "GET",
        *headers: Header,
        upgrade: bool = False,
        whole: bool = False,
        name: str = "web",
    ) -> None:
        line = RequestLine(method, "/", [("Host", "example"), *headers])
        end = [mux.end_frame(number)] if whole else []
        self.say(mux.open_frame(number, mux.Open("preview", "t", line, upgrade, name)), *end)

    def upload(self, number: int) -> Wire:
        """A tunnel whose upstream takes bytes until it is full."""
        self.ask(number, "POST", ("Content-Length", str(1 << 30)))
        wire = self.connect()
        wire.take()
        return wire

    def raw(self, number: int) -> Wire:
        self.ask(number, upgrade=True)
        wire = self.connect()
        wire.send(SWITCHED)
        wire.take()
        self.said()
        return wire

    def said(self) -> list[tuple[int, int, Any]]:
        """What the host said since the last call, payloads decoded."""
        frames, self.link.muxed = self.link.muxed, []
        return [(kind, number, _read(kind, payload)) for kind, number, payload in frames]

    def data(self, number: int, size: int) -> bytes:
        return mux.frame(mux.DATA, number, b"x" * size)


def _read(kind: int, payload: bytes) -> Any:
    if kind == mux.HEAD:
        head = mux.read_head(payload)
        return head.status if head.ok else (head.status, head.message)
    if kind == mux.END:
        return mux.read_trailers(payload)
    if kind == mux.RESET:
        return mux.read_reset(payload).code
    return mux.read_credit(payload) if kind == mux.CREDIT else payload


class RequestTests(StreamsTestCase):
    def test_a_request_and_its_answer(self) -> None:
        self.ask(1, whole=True)
        wire = self.connect()
        self.assertTrue(wire.take().startswith(b"GET / HTTP/1.1\r\n"))
        wire.send(HEAD + b"0123456789")
        self.assertEqual(self.said(), [(mux.HEAD, 1, 200), (mux.DATA, 1, b"0123456789"), (mux.END, 1, [])])
        self.assertEqual((self.table.open_tunnels, self.table.traffic.opened), (0, 1))
        self.assertEqual(self.link.sent, [])

    def test_a_body(self) -> None:
        self.ask(3, "POST")
        self.say(mux.frame(mux.DATA, 3, b"one"), mux.frame(mux.DATA, 3, b"two"), mux.end_frame(3))
        wire = self.connect()
        sent = wire.take()
        self.assertIn(b"one", sent)
        self.assertTrue(sent.endswith(b"0\r\n\r\n"))
        self.assertEqual(self.table.traffic.received, 6)

    def test_trailers_and_interim_answers(self) -> None:
        self.ask(1, whole=True)
        wire = self.connect()
        wire.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20)
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nDigest: x\r\n\r\n")
        self.assertEqual(
            self.said(), [(mux.HEAD, 1, 103)] * 8 + [(mux.HEAD, 1, 200), (mux.END, 1, [("Digest", "x")])]
        )

    def test_an_answer_that_does_not_wait_for_the_body(self) -> None:
        wire = self.upload(1)
        wire.send(HEAD + b"0123456789")
        self.assertEqual(self.said()[-2:], [(mux.END, 1, []), (mux.RESET, 1, mux.NOT_NEEDED)])
        self.assertTrue(wire.aborted)
        self.say(self.data(1, 100), mux.end_frame(1))
        self.assertEqual((self.said(), self.broken), ([], []))

    def test_refusals(self) -> None:
        self.ask(1, name="api")
        self.ask(2, "GET", ("X", "a\r\nY: b"))
        (first, second) = self.said()
        self.assertEqual(first, (mux.HEAD, 1, (503, "target port is not available on this host")))
        self.assertEqual((second[:2], second[2][0]), ((mux.HEAD, 2), 400))
        self.ask(3, whole=True)
        self.refuse(ConnectionRefusedError())
        self.assertEqual(
            [(kind, number, head[0]) for kind, number, head in self.said()], [(mux.HEAD, 3, 502)]
        )
        self.assertEqual((self.table.open_tunnels, self.table.traffic.refused), (0, 2))

    def test_an_answer_that_is_cut_short(self) -> None:
        self.ask(1, whole=True)
        wire = self.connect()
        wire.send(HEAD + b"01234")
        wire.close()
        self.assertEqual(self.said()[1:], [(mux.DATA, 1, b"01234"), (mux.RESET, 1, mux.FAILED)])

    def test_a_reset_by_the_bridge_destroys_the_upstream_and_is_not_answered(self) -> None:
        for number, upgrade in ((1, False), (2, True)):
            self.ask(number, upgrade=upgrade, whole=not upgrade)
            wire = self.connect()
            self.say(mux.reset_frame(number, mux.CANCELLED, "gone"))
            self.assertTrue(wire.aborted)
        self.assertEqual((self.said(), self.table.open_tunnels), ([], 0))

    def test_a_lost_link_says_nothing_and_leaves_nothing(self) -> None:
        wires = [self.upload(1), self.raw(2)]
        self.table.link_lost()
        self.assertTrue(all(wire.aborted for wire in wires))
        self.assertEqual((self.said(), self.table.open_tunnels), ([], 0))


class HalfTests(StreamsTestCase):
    def test_the_bridges_half_ends_first(self) -> None:
        wire = self.raw(1)
        self.say(mux.frame(mux.DATA, 1, b"last"), mux.end_frame(1))
        self.assertEqual((wire.take(), wire.write_closed), (b"last", True))
        wire.send(b"still here")
        wire.close()
        self.assertEqual(self.said(), [(mux.DATA, 1, b"still here"), (mux.END, 1, [])])
        self.assertEqual(self.table.open_tunnels, 0)

    def test_the_upstreams_half_ends_first(self) -> None:
        wire = self.raw(1)
        wire.protocol.readConnectionLost()
        self.assertEqual(self.said(), [(mux.END, 1, [])])
        self.say(mux.frame(mux.DATA, 1, b"still here"))
        self.assertEqual((wire.take(), wire.disconnecting), (b"still here", False))
        self.say(mux.end_frame(1))
        self.assertTrue(wire.disconnecting)
        wire.close()
        self.assertEqual((self.said(), self.table.open_tunnels), ([], 0))

    def test_what_waits_when_both_have_ended_still_arrives(self) -> None:
        wire = self.raw(1)
        wire.full()
        self.say(mux.frame(mux.DATA, 1, b"waits"), mux.end_frame(1))
        wire.protocol.readConnectionLost()
        self.assertEqual((wire.take(), wire.disconnecting), (b"", False))
        wire.drained()
        self.assertEqual((wire.take(), wire.disconnecting), (b"waits", True))
        wire.close()
        self.assertEqual((self.said(), self.table.waiting), ([(mux.END, 1, [])], 0))

    def test_an_upstream_that_fails_after_its_half(self) -> None:
        wire = self.raw(1)
        wire.protocol.readConnectionLost()
        wire.close(ConnectionResetError())
        self.assertEqual(self.said(), [(mux.END, 1, []), (mux.RESET, 1, mux.FAILED)])


class WindowTests(StreamsTestCase):
    def test_credit_comes_back_as_the_upstream_takes(self) -> None:
        self.link.round_trip = 0.0
        wire = self.upload(1)
        self.say(self.data(1, 32768))
        self.assertEqual(self.said(), [(mux.CREDIT, 1, 32768)])
        wire.full()
        self.say(self.data(1, 65536))
        self.assertEqual((self.said(), self.table.waiting), ([], 65536))
        wire.drained()
        self.assertEqual((self.said(), self.table.waiting), ([(mux.CREDIT, 1, 65536)], 0))

    def test_windows_grow_to_their_limits(self) -> None:
        wire = self.upload(1)
        permitted = {1: mux.TUNNEL_WINDOW, 0: mux.LINK_WINDOW}
        for _ in range(2000):
            self.say(self.data(1, 32768))
            wire.take()
            for number in permitted:
                permitted[number] -= 32768
            for _, number, credit in self.said():
                permitted[number] += credit
        for number, limit in ((1, TUNNEL_LIMIT), (0, LINK_LIMIT)):
            self.assertTrue(limit // 2 <= permitted[number] <= limit, (number, permitted[number]))

    def test_no_credit_after_the_end_of_the_request(self) -> None:
        wire = self.raw(1)
        wire.full()
        self.say(self.data(1, 65536), mux.end_frame(1))
        wire.drained()
        self.assertEqual((self.said(), len(wire.take())), ([], 65536))

    def test_a_tunnel_beyond_its_window_is_reset_and_no_other(self) -> None:
        for answered in (False, True):
            self.setUp()
            wire, other = self.upload(1), self.upload(2)
            if answered:
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01")
            self.said()
            wire.full()
            self.say(self.data(1, 65536), self.data(1, 1), self.data(2, 5))
            self.assertEqual(self.said(), [(mux.RESET, 1, mux.WINDOW_EXCEEDED)])
            self.assertTrue(wire.aborted)
            self.assertEqual((other.take(), self.broken), (b"xxxxx", []))

    def test_a_slow_upstream_holds_nobody_and_never_the_link(self) -> None:
        slow, quick = self.upload(1), self.upload(2)
        slow.full()
        self.say(self.data(1, 65536))
        total = 0
        for _ in range(200):
            self.say(self.data(2, 32768))
            total += len(quick.take())
        self.assertEqual((total, self.link.history), (200 * 32768, []))
        self.assertEqual(self.table.waiting, 65536)

    def test_data_of_dead_tunnels_counts_and_comes_back(self) -> None:
        self.raw(1)
        self.say(mux.reset_frame(1, mux.CANCELLED, ""))
        for _ in range(100):
            self.say(self.data(1, 65536))
        credit = sum(credit for _, number, credit in self.said() if number == 0)
        self.assertGreaterEqual(credit, 99 * 65536 - mux.LINK_WINDOW)
        self.assertEqual(self.broken, [])

    def test_what_waits_for_the_bridges_credit_leaves_with_it_after_the_end(self) -> None:
        self.ask(1, whole=True)
        wire = self.connect()
        body = b"x" * (mux.TUNNEL_WINDOW + 100)
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.assertEqual([kind for kind, _, _ in self.said()], [mux.HEAD, mux.DATA])
        self.say(mux.credit_frame(1, 50))
        self.assertEqual(self.said(), [(mux.DATA, 1, b"x" * 50)])
        self.assertEqual(self.table.open_tunnels, 1)
        self.say(mux.credit_frame(1, 50))
        self.assertEqual(self.said(), [(mux.DATA, 1, b"x" * 50), (mux.END, 1, [])])
        self.assertEqual(self.table.open_tunnels, 0)

    def test_a_reset_drops_what_waits_for_credit_after_the_end(self) -> None:
        self.ask(1, whole=True)
        wire = self.connect()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000)
        self.said()
        self.say(mux.reset_frame(1, mux.CANCELLED, "gone"), mux.credit_frame(1, 100_000))
        self.assertEqual((self.said(), self.table.open_tunnels), ([], 0))

    def test_the_links_credit_reaches_the_link(self) -> None:
        self.say(mux.credit_frame(0, 1234))
        self.assertEqual(self.link.link_credit, 1234)


class StallTests(StreamsTestCase):
    def fill(self, count: int) -> list[Wire]:
        """Upstreams that take nothing, with a whole first window each."""
        wires = []
        for number in range(1, count + 1):
            wire = self.upload(number)
            wire.full()
            wires.append(wire)
            self.say(self.data(number, mux.TUNNEL_WINDOW))
        self.said()
        return wires

    def test_upstreams_that_take_nothing_are_given_up_once_too_much_waits(self) -> None:
        count = HELD // mux.TUNNEL_WINDOW + 3
        wires = self.fill(count)
        self.assertGreater(self.table.waiting, HELD)
        self.reactor.advance(STALL_LIMIT - 1)
        wires[0].drained()
        wires[0].full()
        self.say(self.data(1, 1000))
        self.said()
        self.reactor.advance(1)
        codes = {(kind, code) for kind, number, code in self.said() if number}
        self.assertEqual(codes, {(mux.RESET, mux.STALLED)})
        self.assertEqual(sum(wire.aborted for wire in wires), count - 1)
        self.assertFalse(wires[0].aborted)
        self.assertEqual(self.table.waiting, 1000)

    def test_they_may_wait_for_ever_while_there_is_room(self) -> None:
        wires = self.fill(HELD // mux.TUNNEL_WINDOW)
        self.reactor.advance(10 * STALL_LIMIT)
        self.assertFalse(any(wire.aborted for wire in wires))

    def test_the_links_window_bounds_what_waits_and_comes_back(self) -> None:
        count = HELD // mux.TUNNEL_WINDOW
        self.fill(count)
        number = count
        sent = 0
        while not self.broken and sent < 2 * LINK_LIMIT:
            number += 1
            self.upload(number).full()
            self.say(self.data(number, mux.TUNNEL_WINDOW))
            sent += mux.TUNNEL_WINDOW
        # Without credit for the link a bridge that goes on is left.
        self.assertEqual(len(self.broken), 1)
        self.assertLessEqual(self.table.waiting, HELD + LINK_LIMIT)


class BrokenTests(StreamsTestCase):
    def test_what_ends_the_connection(self) -> None:
        whole = mux.end_frame(1)
        for message in (
            b"",
            whole[:-1],
            mux.data_header(1, mux.MAX_PAYLOAD + 1),
            mux.frame(mux.DATA, 0, b"x"),
            mux.frame(mux.CREDIT, 0, b"xyz"),
            mux.credit_frame(7, 1),
            self.data(1, 600_000) + self.data(1, 600_000),
        ):
            self.setUp()
            self.say(message)
            self.assertEqual(len(self.broken), 1, message[:20])
            self.ask(9)
            self.assertEqual((self.table.open_tunnels, len(self.broken)), (0, 1))

    def test_numbers_must_grow(self) -> None:
        for first, second in ((5, 5), (5, 4)):
            self.setUp()
            self.ask(first)
            self.ask(second)
            self.assertEqual(len(self.broken), 1)

    def test_a_window_that_overflows(self) -> None:
        self.raw(1)
        self.say(mux.credit_frame(1, mux.MAX_WINDOW))
        self.assertEqual(len(self.broken), 1)

    def test_what_resets_its_tunnel_only(self) -> None:
        for frames in (
            [mux.frame(mux.DATA, 1)],
            [mux.frame(mux.END, 1, b"[]")],
            [mux.end_frame(1), mux.end_frame(1)],
            [mux.end_frame(1), self.data(1, 1)],
            [mux.head_frame(1, mux.Head(True, 200))],
            [mux.frame(mux.CREDIT, 1, b"xyz")],
            [mux.frame(mux.RESET, 1, b"x")],
        ):
            self.setUp()
            wire, other = self.raw(1), self.raw(2)
            self.say(*frames, mux.frame(mux.DATA, 2, b"on"))
            self.assertEqual(self.said(), [(mux.RESET, 1, mux.BAD_FRAME)], frames)
            self.assertTrue(wire.aborted)
            self.assertEqual((other.take(), self.broken), (b"on", []))

    def test_an_open_that_cannot_be_read(self) -> None:
        self.say(mux.frame(mux.OPEN, 1, b"{}"), mux.frame(99, 5, b"unknown"))
        self.assertEqual((self.said(), self.broken), ([(mux.RESET, 1, mux.BAD_FRAME)], []))
        self.ask(2)
        self.assertEqual(self.connects, 1)

    @given(
        strategies.lists(
            strategies.tuples(
                strategies.integers(0, 7),
                strategies.integers(0, 4),
                strategies.sampled_from([b"", b"\0\0\0\1", b"\0\0", b"{}", b"x" * 70_000, b"[]"]),
            ),
            max_size=12,
        )
    )
    def test_no_row_of_frames_raises_or_leaves_anything(self, frames: list[tuple[int, int, bytes]]) -> None:
        self.setUp()
        self.ask(1, "POST")
        self.ask(2, upgrade=True)
        wire = self.connect()
        wire.send(SWITCHED)
        for frame in frames:
            self.say(mux.frame(*frame))
        self.table.link_lost()
        self.assertEqual((self.table.open_tunnels, self.table.waiting), (0, 0))
