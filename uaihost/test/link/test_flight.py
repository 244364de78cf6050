"""How much is on the way: on links of all speeds, steady, unsteady, and with peers that say nothing."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from uaihost.link.flight import (
    LEAST,
    LEAST_CHUNK,
    MARK_INTERVAL,
    MARK_SIZE,
    MOST,
    MOST_CHUNK,
    MOST_MARKS,
    TARGET,
    TARGET_SHARE,
    Flight,
)
from uaihost.test.link.fakes import endless
from uaihost.test.link.way import Way
from uaihost.test.support import given, settings, strategies

# Bytes per second, seconds there and back, seconds to warm up and to measure.
LINKS = {
    "2 Mbit/s, 100 ms": (250e3, 0.1, 5.0, 22.0),
    "100 Mbit/s, 30 ms": (12.5e6, 0.03, 2.0, 12.0),
    "800 MB/s, 0.3 ms": (800e6, 0.0003, 0.3, 1.0),
}

# A chunk is an eighth of the window, and that is a quarter more than a round trip.
CHUNKS_PER_ROUND = 6


def busy(rate: float, round_trip: float, jitter: float = 0.0) -> Way:
    """A way with two endless downloads."""
    way = Way(rate, round_trip / 2, jitter)
    way.outbound.control(b"{}")
    way.run(2 * round_trip)
    for name in ("a", "b"):
        endless(way.outbound, name, 64 * 1024)()
    return way


def target(round_trip: float) -> float:
    return TARGET + TARGET_SHARE * round_trip


class LinkTests(SynchronousTestCase):
    def check(self, name: str, jitter: float = 0.0) -> None:
        """The link is used to nine tenths, and what waits on it is the target, twice that for a moment."""
        rate, round_trip, warm, seconds = LINKS[name]
        way = busy(rate, round_trip, jitter)
        way.run(warm)
        before, way.delayed = way.received, []
        way.run(seconds)
        self.assertGreater((way.received - before) / seconds, 0.9 * rate)
        waits = sorted(way.delayed)
        # A chunk takes its own time too; a tenth of the answers' jitter is taken for speed.
        bound = target(round_trip) + round_trip / CHUNKS_PER_ROUND + jitter
        self.assertLess(waits[len(waits) // 2], 1.5 * bound)
        self.assertLess(waits[len(waits) * 99 // 100], 3 * bound)
        self.assertLess(waits[-1], max(4.5 * bound, 1.5 * round_trip))

    def test_a_slow_link(self) -> None:
        self.check("2 Mbit/s, 100 ms")

    def test_a_home_link(self) -> None:
        self.check("100 Mbit/s, 30 ms")

    def test_a_loopback(self) -> None:
        self.check("800 MB/s, 0.3 ms")

    def test_unsteady_links(self) -> None:
        self.check("2 Mbit/s, 100 ms", jitter=0.02)
        self.check("100 Mbit/s, 30 ms", jitter=0.005)
        self.check("800 MB/s, 0.3 ms", jitter=0.001)

    def test_it_follows_a_link_that_becomes_slower_and_faster(self) -> None:
        for rate, round_trip, warm, _ in LINKS.values():
            way = busy(rate, round_trip)
            way.run(warm)
            way.rate = rate / 2
            way.run(2)
            before, way.delayed = way.received, []
            way.run(2)
            self.assertGreater((way.received - before) / 2, 0.45 * rate)
            self.assertLess(max(way.delayed), 4 * target(round_trip) + round_trip / 2)
            way.rate = rate
            way.run(1.5)
            before = way.received
            way.run(2)
            self.assertGreater((way.received - before) / 2, 0.9 * rate)

    def test_marks_are_few(self) -> None:
        for rate, round_trip, warm, seconds in LINKS.values():
            way = busy(rate, round_trip)
            way.run(warm)
            before, bytes_before = way.marks, way.received
            way.run(min(seconds, 5))
            marks = way.marks - before
            self.assertLess(marks / min(seconds, 5), 1000)
            self.assertLess(marks * MARK_SIZE, 0.006 * (way.received - bytes_before))

    def test_a_stall_of_the_peer_costs_its_own_time_only(self) -> None:
        rate, round_trip, warm, _ = LINKS["800 MB/s, 0.3 ms"]
        way = busy(rate, round_trip)
        way.run(warm)
        for _ in range(10):
            way.stall(0.02)
            way.run(0.03)
            before = way.received
            way.run(0.07)
            self.assertGreater((way.received - before) / 0.07, 0.9 * rate)

    def test_a_peer_that_answers_nothing_gets_everything(self) -> None:
        way = Way(12.5e6, 0.015, buffer=128 * 1024, answers=False)
        way.outbound.control(b"{}")
        endless(way.outbound, "a", 64 * 1024)()
        way.run(2)
        self.assertGreater(way.received, 0.95 * 2 * 12.5e6)
        self.assertLessEqual(way.marks, MOST_MARKS)
        self.assertIsNone(way.outbound.round_trip)

    def test_the_socket_is_told_the_links_speed(self) -> None:
        way = busy(250e3, 0.1)
        way.run(5)
        self.assertApproximates(way.uplinks[-1] or 0.0, 250e3, 0.26 * 250e3)
        self.assertLess(len(way.uplinks), 12)

    def test_an_idle_connection_knows_its_round_trip(self) -> None:
        way = Way(250e3, 0.05)
        way.every(15, lambda: way.outbound.control(b"{}"))
        way.run(100)
        self.assertApproximates(way.outbound.round_trip or 0.0, 0.1, 0.002)
        self.assertEqual(way.marks, 6)


_event = strategies.one_of(
    strategies.tuples(strategies.just("send"), strategies.integers(1, 200_000)),
    strategies.tuples(strategies.just("answer"), strategies.integers(0, 20)),
    strategies.tuples(strategies.just("idle"), strategies.just(0)),
    strategies.tuples(strategies.just("deaf"), strategies.integers(0, 1)),
    strategies.tuples(strategies.just("time"), strategies.integers(-2000, 20_000)),
    strategies.tuples(strategies.just("noise"), strategies.integers(0, 300)),
)


class FlightProperties(SynchronousTestCase):
    @settings(max_examples=300)
    @given(strategies.lists(_event, max_size=80))
    def test_whatever_happens_there_is_room_or_an_answer_to_come(self, events: list[tuple[str, int]]) -> None:
        flight = Flight()
        now, deaf = 1000.0, False
        marks: list[tuple[bytes, int]] = []
        sent = arrived = 0
        for what, number in events:
            if what == "send":
                flight.sent(number)
                sent += number
            elif what == "answer" and marks:
                # Any that is on its way stands for all before it.
                at = number % len(marks)
                flight.answered(marks[at][0], now)
                arrived = marks[at][1]
                del marks[: at + 1]
            elif what == "idle":
                flight.idle()
            elif what == "deaf":
                deaf = bool(number)
                flight.deaf(deaf)
            elif what == "time":
                # The clock may be set.
                now += number / 1000
            elif what == "noise":
                flight.answered(bytes(number % 17), now)
            while flight.due(now):
                payload = flight.mark(now)
                sent += MARK_SIZE
                marks.append((payload, sent))
            self.assertEqual(flight.under_way, sent - arrived)
            self.assertLessEqual(len(marks), MOST_MARKS)
            self.assertTrue(flight.room > 0 or marks, "no room, and nothing that brings any")
            self.assertTrue(not deaf or flight.room > 0)
            self.assertTrue(LEAST_CHUNK <= flight.chunk <= MOST_CHUNK)
            if flight.window is not None:
                self.assertTrue(LEAST // 4 <= flight.window <= MOST)

    def test_an_answer_is_counted_once(self) -> None:
        flight = Flight()
        flight.sent(100)
        first, second = flight.mark(0.0), flight.mark(0.0)
        flight.answered(second, 0.1)
        self.assertEqual((flight.under_way, flight.round_trip), (0, 0.1))
        flight.sent(50)
        flight.answered(first, 5.0)
        flight.answered(second, 5.0)
        self.assertEqual((flight.under_way, flight.round_trip), (50, 0.1))

    def test_what_was_asked_before_it_went_deaf_says_nothing_of_time(self) -> None:
        flight = Flight()
        flight.sent(100)
        flight.answered(flight.mark(0.0), 0.1)
        flight.sent(100_000)
        mark = flight.mark(0.2)
        self.assertLess(flight.room, 1)
        flight.deaf(True)
        self.assertGreater(flight.room, 0)
        flight.deaf(False)
        flight.answered(mark, 9.0)
        self.assertEqual((flight.under_way, flight.round_trip), (0, 0.1))

    def test_what_was_sent_little_by_little_is_no_measure_of_the_way(self) -> None:
        """Most of it had arrived long before the mark behind it was sent."""
        flight = Flight()
        now = 0.0
        for number in range(400):
            # At first as fast as it goes, then with pauses.
            if number > 200:
                flight.sent(1000)
                flight.idle()
            for _ in range(10):
                flight.sent(100_000)
                now += 0.001
            flight.answered(flight.mark(now), now + 0.0002)
        self.assertApproximates(flight.rate or 0.0, 100e6, 10e6)

    def test_a_mark_goes_with_what_is_sent_after_a_while(self) -> None:
        flight = Flight()
        flight.sent(10)
        self.assertTrue(flight.due(0.0))
        flight.answered(flight.mark(0.0), 0.1)
        self.assertFalse(flight.due(MARK_INTERVAL))
        flight.sent(10)
        self.assertFalse(flight.due(MARK_INTERVAL - 0.1))
        self.assertTrue(flight.due(MARK_INTERVAL))
