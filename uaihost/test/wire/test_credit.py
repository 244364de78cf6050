"""Windows of mux.1, one by one and as a model of two ends with a long way between them."""

from __future__ import annotations

import random
from collections import deque
from heapq import heappop, heappush

from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.support import given, strategies
from uaihost.wire.credit import (
    Allowance,
    LinkWindow,
    ReceiveWindow,
    SendWindow,
    WindowExceeded,
    WindowOverflow,
)
from uaihost.wire.mux import MAX_WINDOW


class SendTests(SynchronousTestCase):
    def test_what_is_taken_and_added(self) -> None:
        window = SendWindow(10)
        window.take(10)
        self.assertEqual(window.left, 0)
        self.assertRaises(AssertionError, window.take, 1)
        window.add(MAX_WINDOW)
        self.assertEqual(window.left, MAX_WINDOW)
        self.assertRaises(WindowOverflow, window.add, 1)
        self.assertEqual(window.left, MAX_WINDOW)


class ReceiveTests(SynchronousTestCase):
    def test_credit_comes_when_half_was_taken(self) -> None:
        window = ReceiveWindow(100, 100)
        window.received(100)
        self.assertEqual(window.consumed(49, 0.0, 1.0), 0)
        self.assertEqual(window.consumed(1, 0.0, 1.0), 50)
        self.assertEqual(window.consumed(50, 9.0, 1.0), 50)

    def test_more_than_was_permitted(self) -> None:
        window = ReceiveWindow(100, 100)
        window.received(100)
        self.assertRaises(WindowExceeded, window.received, 1)
        window.consumed(60, 0.0, 1.0)
        window.received(60)
        self.assertRaises(WindowExceeded, window.received, 1)

    def test_it_grows_for_a_reader_in_a_hurry_up_to_its_limit(self) -> None:
        window = ReceiveWindow(100, 350)
        self.assertEqual(window.consumed(50, 0.0, 1.0), 150)
        self.assertEqual(window.consumed(100, 1.9, 1.0), 250)
        self.assertEqual((window.size, window.consumed(350, 2.0, 1.0)), (350, 350))

    def test_it_does_not_grow_for_a_reader_at_leisure(self) -> None:
        window = ReceiveWindow(100, 350)
        window.consumed(1, 0.0, 1.0)
        self.assertEqual((window.consumed(49, 2.0, 1.0), window.size), (50, 100))

    def test_without_a_known_round_trip_the_way_counts_as_long(self) -> None:
        window = ReceiveWindow(100, 200)
        window.consumed(1, 0.0, None)
        self.assertEqual((window.consumed(49, 0.19, None), window.size), (150, 200))

    def test_growth_is_shared_and_given_back(self) -> None:
        allowance = Allowance(150)
        first, second, third = (ReceiveWindow(100, 1000, allowance) for _ in range(3))
        self.assertEqual([w.consumed(50, 0.0, 1.0) for w in (first, second, third)], [150, 100, 50])
        self.assertEqual(allowance.left, 0)
        first.close()
        first.close()
        self.assertEqual(allowance.left, 100)
        self.assertEqual(first.consumed(100, 0.0, 1.0), 100)
        self.assertEqual(third.consumed(50, 0.0, 1.0), 150)
        self.assertEqual(allowance.left, 0)


class LinkTests(SynchronousTestCase):
    def test_what_comes_is_given_back_while_little_waits(self) -> None:
        window = LinkWindow(100, 100, 30)
        window.received(60)
        window.held = 30
        self.assertEqual((window.strained, window.due(0.0, 0.0)), (False, 60))

    def test_what_waits_beyond_the_bound_is_given_back_as_it_is_taken(self) -> None:
        window = LinkWindow(100, 100, 30)
        window.received(100)
        window.held = 100
        self.assertEqual((window.strained, window.due(0.0, 0.0)), (True, 0))
        window.held = 80
        self.assertEqual(window.due(0.0, 0.0), 50)
        window.held = 30
        self.assertEqual(window.due(0.0, 0.0), 50)
        self.assertFalse(window.strained)
        window.received(100)
        self.assertRaises(WindowExceeded, window.received, 1)


class _Tunnel:
    """One tunnel's two ends. backlog: bytes to send; waiting: bytes that came and were not read."""

    def __init__(self, size: int, limit: int, allowance: Allowance, backlog: int) -> None:
        self.send = SendWindow(size)
        self.receive = ReceiveWindow(size, limit, allowance)
        self.backlog = backlog
        self.waiting = 0
        self.read = 0


class Model:
    """Two ends: data takes `delay` seconds one way, credit takes it back, at random up to twice as long.

    The sender takes tunnels in turn; readers read what `rates` say, bytes per second. Checked at each step:
    windows (they raise), what waits in memory, the allowance.
    """

    TUNNEL, LINK, PIECE = 100, 400, 32

    def __init__(
        self, rates: list[int], backlog: int, delay: float, seed: int, limit: int, bound: int
    ) -> None:
        self.random = random.Random(seed)
        self.growth = 4 * limit
        self.allowance = Allowance(self.growth)
        self.tunnels = [_Tunnel(self.TUNNEL, limit, self.allowance, backlog) for _ in rates]
        self.rates = rates
        self.delay = delay
        self.bound = bound
        self.link_send = SendWindow(self.LINK)
        self.link = LinkWindow(self.LINK, 16 * self.LINK, bound)
        self.now = 0.0
        self.events: list[tuple[float, int, str, int, int]] = []
        self.count = 0
        # Each direction keeps its order.
        self.last = {"data": 0.0, "credit": 0.0}
        self.ready: deque[int] = deque(range(len(rates)))

    def post(self, kind: str, index: int, size: int, delay: float) -> None:
        at = self.now + delay
        if kind in self.last:
            at = self.last[kind] = max(self.last[kind], at)
        self.count += 1
        heappush(self.events, (at, self.count, kind, index, size))

    def way(self) -> float:
        return self.delay * self.random.uniform(1, 2)

    def pump(self) -> None:
        """Send all that may be sent."""
        idle = 0
        while idle < len(self.ready):
            index = self.ready[0]
            self.ready.rotate(-1)
            tunnel = self.tunnels[index]
            size = min(tunnel.backlog, tunnel.send.left, self.link_send.left, self.PIECE)
            if not size:
                idle += 1
                continue
            idle = 0
            tunnel.send.take(size)
            self.link_send.take(size)
            tunnel.backlog -= size
            self.post("data", index, size, self.way())

    def give_back(self) -> None:
        credit = self.link.due(self.now, 2 * self.delay)
        if credit:
            self.post("credit", -1, credit, self.way())

    def arrive(self, index: int, size: int) -> None:
        self.link.received(size)
        tunnel = self.tunnels[index]
        tunnel.receive.received(size)
        if not tunnel.waiting and self.rates[index]:
            self.post("read", index, 0, self.random.uniform(0, 2 * self.PIECE / self.rates[index]))
        tunnel.waiting += size
        self.link.held += size
        self.give_back()

    def take(self, index: int) -> None:
        tunnel = self.tunnels[index]
        size = min(tunnel.waiting, self.PIECE)
        tunnel.waiting -= size
        tunnel.read += size
        self.link.held -= size
        credit = tunnel.receive.consumed(size, self.now, 2 * self.delay)
        if credit:
            self.post("credit", index, credit, self.way())
        self.give_back()
        if tunnel.waiting:
            self.post("read", index, 0, size / self.rates[index])

    def run(self, until: float = 1e9) -> None:
        self.pump()
        while self.events and self.events[0][0] <= until:
            self.now, _, kind, index, size = heappop(self.events)
            if kind == "data":
                self.arrive(index, size)
            elif kind == "read":
                self.take(index)
            else:
                (self.link_send if index < 0 else self.tunnels[index].send).add(size)
                self.pump()
            grown = sum(tunnel.receive.size - self.TUNNEL for tunnel in self.tunnels)
            assert grown + self.allowance.left == self.growth
            assert self.allowance.left >= 0
            assert self.link.held <= self.bound + self.link.size, (self.link.held, self.link.size)


class ModelTests(SynchronousTestCase):
    @given(
        strategies.lists(strategies.integers(10, 100_000), min_size=1, max_size=6),
        strategies.integers(1, 6000),
        strategies.floats(0.0001, 1.0),
        strategies.integers(0, 1 << 30),
        strategies.sampled_from([100, 150, 1600]),
        strategies.sampled_from([0, 50, 1000]),
    )
    def test_every_byte_arrives_whatever_the_readers_do(
        self, rates: list[int], backlog: int, delay: float, seed: int, limit: int, bound: int
    ) -> None:
        model = Model(rates, backlog, delay, seed, limit, bound)
        model.run()
        self.assertEqual([tunnel.read for tunnel in model.tunnels], [backlog] * len(rates))
        self.assertEqual(model.link.held, 0)
        for tunnel in model.tunnels:
            # Less than half a window has not come back.
            self.assertGreater(2 * tunnel.send.left, tunnel.receive.size)
        self.assertGreater(2 * model.link_send.left, model.link.size)

    @given(strategies.integers(1, 5), strategies.integers(0, 1 << 30))
    def test_readers_that_never_read_stop_nobody_else(self, dead: int, seed: int) -> None:
        rates = [0] * dead + [50_000, 50_000]
        model = Model(rates, 5000, 0.01, seed, 1600, bound=dead * Model.TUNNEL)
        model.run()
        self.assertEqual([tunnel.read for tunnel in model.tunnels], [0] * dead + [5000, 5000])
        # They were given their first windows, no more.
        self.assertEqual(model.link.held, dead * Model.TUNNEL)

    def test_one_stream_over_a_long_way_grows_to_what_its_reader_takes(self) -> None:
        for rate in (2_000, 10_000):
            delay = 0.05
            model = Model([rate], 10_000_000, delay, 7, limit=6400, bound=10_000)
            model.run(until=10.0)
            before = model.tunnels[0].read
            model.run(until=20.0)
            speed = (model.tunnels[0].read - before) / 10.0
            self.assertGreater(speed, 0.9 * rate, rate)
            # At least the product of speed and round trip, but not without end.
            size = model.tunnels[0].receive.size
            self.assertGreaterEqual(size, rate * 2 * delay)
            self.assertLessEqual(size, 16 * rate * 2 * delay)

    def test_a_window_that_may_not_grow_bounds_the_speed(self) -> None:
        model = Model([10_000], 10_000_000, 0.05, 7, limit=Model.TUNNEL, bound=10_000)
        model.run(until=10.0)
        self.assertLess(model.tunnels[0].read, 10.0 * Model.TUNNEL / 0.1)
