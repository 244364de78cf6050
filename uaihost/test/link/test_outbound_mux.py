"""Tunnels of mux.1 on their way out: gathered in messages, held by their own credit and no other's."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.link.outbound import HIGH_WATER, TOTAL_HIGH_WATER, Outbound
from uaihost.test.link.fakes import Pipe, Spring
from uaihost.wire import mux
from uaihost.wire.credit import WindowOverflow


class StreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pipe = Pipe(1 << 30)
        self.outbound = Outbound(self.pipe, self.clock)

    def leave(self) -> list[list[tuple[int, int, int]]]:
        """What leaves now: for each message its frames' types, tunnels and sizes."""
        self.clock.advance(0)
        sent, self.pipe.sent = self.pipe.sent, []
        return [[(k, n, len(content)) for k, n, content in mux.frames(m.payload)] for m in sent if m.binary]

    def test_what_is_said_in_one_turn_of_the_reactor_is_one_message(self) -> None:
        for number in range(1, 33):
            stream = self.outbound.stream(number)
            stream.hint(False)
            stream.frame(mux.frame(mux.HEAD, number, b"{}"))
            stream.write(b"a" * 100)
            stream.write(b"b" * 100)
            stream.finish(mux.end_frame(number))
        expected = [[(mux.HEAD, n, 2), (mux.DATA, n, 200), (mux.END, n, 0)] for n in range(1, 33)]
        self.assertEqual(self.leave(), [[frame for request in expected for frame in request]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_urgent_comes_first_and_needs_no_credit(self) -> None:
        stream = self.outbound.stream(1)
        stream.hint(False)
        stream.write(bytes(mux.TUNNEL_WINDOW + 1))
        self.outbound.urgent(mux.credit_frame(0, 5))
        [[first, *rest]] = self.leave()
        self.assertEqual(first, (mux.CREDIT, 0, 4))
        self.assertEqual(sum(size for _, _, size in rest), mux.TUNNEL_WINDOW)
        self.outbound.urgent(mux.reset_frame(1, mux.CANCELLED, ""))
        self.assertEqual(self.leave(), [[(mux.RESET, 1, 2)]])

    def test_a_stream_goes_on_by_as_much_as_it_is_given(self) -> None:
        stream = self.outbound.stream(1)
        stream.hint(False)
        stream.write(bytes(100_000))
        stream.finish(mux.end_frame(1))
        self.leave()
        stream.credit(10)
        self.assertEqual(self.leave(), [[(mux.DATA, 1, 10)]])
        stream.credit(1 << 20)
        left = 100_000 - mux.TUNNEL_WINDOW - 10
        self.assertEqual(self.leave(), [[(mux.DATA, 1, left), (mux.END, 1, 0)]])
        self.assertRaises(WindowOverflow, stream.credit, mux.MAX_WINDOW)

    def test_readers_that_are_slow_stop_nobody_else(self) -> None:
        springs = []
        for number in range(1, 41):
            stream = self.outbound.stream(number)
            stream.hint(False)
            spring = Spring()
            stream.registerProducer(spring, True)
            self.outbound.credit(mux.TUNNEL_WINDOW)
            while not spring.paused:
                stream.write(bytes(64 * 1024))
                self.clock.advance(0)
            springs.append(spring)
        self.assertEqual(self.outbound.total, 0)
        self.assertLess(self.outbound.held, TOTAL_HIGH_WATER + 40 * (64 * 1024 + 1000))
        self.leave()
        free = self.outbound.stream(99)
        spring = Spring()
        free.registerProducer(spring, True)
        free.write(bytes(1000))
        self.assertFalse(spring.paused)
        self.assertEqual(self.leave(), [[(mux.DATA, 99, 1000)]])

    def test_without_the_links_credit_heads_and_ends_still_leave(self) -> None:
        for number in range(1, 18):
            stream = self.outbound.stream(number)
            stream.hint(False)
            stream.write(bytes(mux.TUNNEL_WINDOW))
        sent = sum(size for message in self.leave() for _, _, size in message)
        self.assertEqual(sent, mux.LINK_WINDOW)
        stream = self.outbound.stream(50)
        stream.frame(mux.frame(mux.HEAD, 50))
        stream.finish(mux.end_frame(50))
        self.assertEqual(self.leave(), [[(mux.HEAD, 50, 0), (mux.END, 50, 0)]])
        self.outbound.credit(5)
        self.assertEqual(sum(size for message in self.leave() for _, _, size in message), 5)
        self.outbound.credit(HIGH_WATER)
        sent = sum(size for message in self.leave() for _, _, size in message)
        self.assertEqual(sent, mux.TUNNEL_WINDOW - 5)
