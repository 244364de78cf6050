"""The model of a slow link: rate, delay, a queue that ends, loss."""

from __future__ import annotations

import random
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.pipe import Pipe
from uaihost.test.support import given, strategies

# 1,000 bytes take 8 ms at this rate.
RATE = 1e6
DELAY = 0.05


def pipe(limit: int = 100, loss: float = 0.0, seed: int = 1) -> Pipe:
    return Pipe(RATE, DELAY, limit, loss, random.Random(seed))


def drain(link: Pipe) -> list[tuple[float, bytes]]:
    """Every packet that is on its way, with the moment of its arrival."""
    arrived = []
    while (moment := link.next()) is not None:
        arrived += [(moment, packet) for packet in link.due(moment)]
    return arrived


class PipeTests(SynchronousTestCase):
    def test_a_packet_takes_its_sending_and_the_delay(self) -> None:
        link = pipe()
        link.put(10.0, b"x" * 1000)
        arrival = link.next()
        assert arrival is not None
        self.assertAlmostEqual(arrival, 10.058)
        self.assertEqual(link.due(10.057), [])
        self.assertEqual(link.due(arrival), [b"x" * 1000])
        self.assertIsNone(link.next())

    def test_packets_are_sent_one_after_the_other(self) -> None:
        link = pipe()
        for number in range(3):
            link.put(0.0, bytes([number]) * 1000)
        found = drain(link)
        self.assertEqual([packet[0] for _, packet in found], [0, 1, 2])
        for (moment, _), wanted in zip(found, (0.058, 0.066, 0.074), strict=True):
            self.assertAlmostEqual(moment, wanted)

    def test_an_idle_link_saves_up_nothing(self) -> None:
        link = pipe()
        link.put(0.0, b"x" * 1000)
        drain(link)
        link.put(5.0, b"x" * 1000)
        link.put(5.0, b"x" * 1000)
        self.assertAlmostEqual(drain(link)[1][0], 5.066)

    def test_beyond_the_limit_packets_are_dropped_until_one_was_sent(self) -> None:
        link = pipe(limit=2)
        for _ in range(3):
            link.put(0.0, b"x" * 1000)
        self.assertEqual(link.dropped, 1)
        link.put(0.007, b"x" * 1000)
        self.assertEqual(link.dropped, 2)
        link.put(0.009, b"x" * 1000)
        self.assertEqual(link.dropped, 2)
        self.assertEqual(len(drain(link)), 3)

    def test_what_is_lost_takes_its_time(self) -> None:
        lost = pipe(loss=1.0)
        lost.put(0.0, b"x" * 1000)
        self.assertIsNone(lost.next())
        self.assertEqual(lost.lost, 1)
        half = pipe(loss=0.5, limit=1000)
        for _ in range(400):
            half.put(0.0, b"x" * 1000)
        found = drain(half)
        self.assertEqual(len(found) + half.lost, 400)
        self.assertTrue(140 < half.lost < 260, half.lost)
        self.assertLessEqual(found[-1][0], 400 * 0.008 + DELAY + 1e-6)

    def test_the_same_seed_loses_the_same(self) -> None:
        def survivors(seed: int) -> list[bytes]:
            link = pipe(loss=0.3, seed=seed)
            for number in range(50):
                link.put(0.0, bytes([number]))
            return [packet for _, packet in drain(link)]

        self.assertEqual(survivors(7), survivors(7))
        self.assertNotEqual(survivors(7), survivors(8))

    @given(
        strategies.lists(
            strategies.tuples(strategies.floats(0, 0.05), strategies.integers(1, 1500)), max_size=60
        ),
        strategies.integers(1, 20),
    )
    def test_never_faster_than_its_rate_never_reordered(
        self, puts: list[tuple[float, int]], limit: int
    ) -> None:
        link = pipe(limit=limit)
        now, sent = 0.0, []
        for number, (pause, size) in enumerate(puts):
            now += pause
            before = link.dropped
            link.put(now, bytes([number]) * size)
            if link.dropped == before:
                sent.append((number, now))
        found = drain(link)
        self.assertEqual([packet[0] for _, packet in found], [number for number, _ in sent])
        for (moment, packet), (_, put) in zip(found, sent, strict=True):
            # A microsecond for what adding floats costs.
            self.assertGreaterEqual(moment + 1e-6, put + len(packet) * 8 / RATE + DELAY)
            self.assertLessEqual(moment, put + limit * 1500 * 8 / RATE + DELAY + 1e-6)
        for (earlier, _), (later, packet) in pairwise(found):
            self.assertGreaterEqual(later - earlier + 1e-6, len(packet) * 8 / RATE)
