"""What leaves first, who takes turns, and how much may wait."""

from __future__ import annotations

import re

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.link.flight import MOST_CHUNK
from uaihost.link.outbound import (
    HIGH_WATER,
    LOW_WATER,
    TOTAL_HIGH_WATER,
    Outbound,
)
from uaihost.link.outlet import UNIT_COST
from uaihost.test.link.fakes import Pipe, Sent, Spring, endless
from uaihost.test.support import given, settings, strategies

# Bytes that an upstream writes at once.
READ = 64 * 1024

_HEADER = re.compile(rb'\{"kind":"tunnel.data","tunnelId":"([^"]+)"\}\Z')


def streams(sent: list[Sent]) -> dict[str, list[bytes]]:
    """What each tunnel said, in order: its frames, and its data joined between them.

    Asserts that header and bytes are never separated.
    """
    found: dict[str, list[bytes]] = {}
    announced = None
    for message in sent:
        if message.binary:
            assert announced is not None, "bytes without a header"
            parts = found.setdefault(announced, [])
            if parts and parts[-1].startswith(b"data:"):
                parts[-1] += message.payload
            else:
                parts.append(b"data:" + message.payload)
            announced = None
            continue
        assert announced is None, "a message between header and bytes"
        if header := _HEADER.match(message.payload):
            announced = header[1].decode()
        elif message.payload.startswith(b"frame "):
            found.setdefault(message.payload.split()[1].decode(), []).append(message.payload)
    assert announced is None
    return found


class OutboundTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pipe = Pipe()
        self.outbound = Outbound(self.pipe, self.clock)

    def fill(self) -> None:
        """Make the transport full with a tunnel of its own."""
        self.outbound.outlet("filler").write(bytes(self.pipe.capacity))
        self.clock.advance(0)
        self.assertTrue(self.pipe.full)
        self.pipe.sent.clear()

    def test_bytes_leave_at_the_end_of_the_turn_while_there_is_room(self) -> None:
        self.outbound.outlet("t1").write(b"hello")
        self.assertEqual(self.pipe.sent, [])
        self.clock.advance(0)
        self.assertEqual(
            self.pipe.sent,
            [Sent(b'{"kind":"tunnel.data","tunnelId":"t1"}', False, False), Sent(b"hello", True, False)],
        )

    def test_empty_bytes_are_nothing(self) -> None:
        self.outbound.outlet("t1").write(b"")
        self.assertEqual((self.pipe.sent, self.clock.getDelayedCalls()), ([], []))

    def test_nothing_is_written_while_the_transport_is_full(self) -> None:
        self.fill()
        self.outbound.outlet("t1").write(b"hello")
        self.outbound.control(b"c")
        self.assertEqual(self.pipe.sent, [])
        self.assertEqual(self.outbound.control_waiting, 1)
        self.assertEqual(self.outbound.total, 5 + UNIT_COST)
        self.pipe.drain()
        self.assertEqual([m.payload for m in self.pipe.sent][0::2], [b"c", b"hello"])
        self.assertEqual((self.outbound.control_waiting, self.outbound.total), (0, 0))

    def test_control_frames_leave_first_and_in_order(self) -> None:
        self.fill()
        self.outbound.outlet("t1").write(b"hello")
        for name in (b"c1", b"c2", b"c3"):
            self.outbound.control(name, True)
        self.pipe.drain()
        self.assertEqual(self.pipe.sent[:3], [Sent(n, False, True) for n in (b"c1", b"c2", b"c3")])

    def test_it_says_since_when_the_transport_is_full(self) -> None:
        self.assertIsNone(self.outbound.full_since)
        self.clock.advance(7)
        self.fill()
        self.assertEqual(self.outbound.full_since, 7)
        self.pipe.drain()
        self.assertIsNone(self.outbound.full_since)

    def test_long_writes_are_split(self) -> None:
        data = bytes(range(256)) * 2048
        outlet = self.outbound.outlet("t1")
        outlet.write(data)
        self.clock.advance(0)
        while self.pipe.full:
            self.pipe.drain()
        pieces = [m.payload for m in self.pipe.sent if m.binary]
        self.assertEqual(b"".join(pieces), data)
        self.assertEqual({len(piece) for piece in pieces}, {MOST_CHUNK})

    def test_short_pieces_that_waited_become_one_message(self) -> None:
        self.fill()
        outlet = self.outbound.outlet("t1")
        for _ in range(1000):
            outlet.write(b"x")
        outlet.frame(b"frame t1")
        outlet.write(b"y")
        self.pipe.drain()
        self.assertEqual([m.payload for m in self.pipe.sent if m.binary], [b"x" * 1000, b"y"])
        self.assertEqual(streams(self.pipe.sent), {"t1": [b"data:" + b"x" * 1000, b"frame t1", b"data:y"]})

    def test_a_close_never_overtakes_data(self) -> None:
        self.fill()
        outlet = self.outbound.outlet("t1")
        outlet.write(bytes(3 * MOST_CHUNK))
        outlet.finish(b"frame t1 close")
        self.outbound.outlet("t2").write(b"other")
        while self.pipe.full:
            self.pipe.drain()
        parts = streams(self.pipe.sent)["t1"]
        self.assertEqual(parts, [b"data:" + bytes(3 * MOST_CHUNK), b"frame t1 close"])

    def test_nothing_follows_the_last_frame(self) -> None:
        outlet = self.outbound.outlet("t1")
        outlet.finish(b"frame t1 close")
        self.assertRaises(AssertionError, outlet.write, b"x")

    def test_a_discarded_outlet_says_nothing_more(self) -> None:
        self.fill()
        outlet = self.outbound.outlet("t1")
        outlet.write(b"hello")
        outlet.discard()
        outlet.write(b"more")
        outlet.finish(b"frame t1 close")
        outlet.discard()
        self.pipe.drain()
        self.assertEqual((self.pipe.sent, self.outbound.total), ([], 0))

    def test_a_producer_is_paused_above_its_share_and_resumed_when_little_is_left(self) -> None:
        self.fill()
        outlet = self.outbound.outlet("t1")
        spring = Spring()
        outlet.registerProducer(spring, True)
        outlet.write(bytes(HIGH_WATER // 2))
        self.assertFalse(spring.paused)
        outlet.write(bytes(HIGH_WATER // 2))
        self.assertTrue(spring.paused)
        while spring.paused:
            self.pipe.drain()
        self.assertLessEqual(self.outbound.total, LOW_WATER)
        self.assertEqual(spring.pauses, 1)

    def test_a_producer_that_comes_to_a_full_outlet_is_paused_at_once(self) -> None:
        self.fill()
        outlet = self.outbound.outlet("t1")
        outlet.write(bytes(2 * HIGH_WATER))
        spring = Spring()
        outlet.registerProducer(spring, True)
        self.assertTrue(spring.paused)

    def test_one_full_tunnel_pauses_no_other(self) -> None:
        self.fill()
        self.outbound.outlet("full").write(bytes(2 * HIGH_WATER))
        other = self.outbound.outlet("other")
        spring = Spring()
        other.registerProducer(spring, True)
        other.write(b"a key stroke")
        self.assertFalse(spring.paused)

    def test_many_tunnels_together_are_bounded(self) -> None:
        self.fill()
        springs = []
        for number in range(200):
            outlet = self.outbound.outlet(f"t{number}")
            spring = Spring()
            outlet.registerProducer(spring, True)
            springs.append(spring)
            while not spring.paused:
                outlet.write(bytes(READ))
        self.assertLessEqual(self.outbound.total, TOTAL_HIGH_WATER + 200 * (READ + UNIT_COST))
        while self.pipe.full:
            self.pipe.drain()
        self.assertEqual([s.paused for s in springs], [False] * 200)

    def test_discarding_the_fullest_lets_others_go_on(self) -> None:
        self.fill()
        greedy = self.outbound.outlet("greedy")
        greedy.write(bytes(TOTAL_HIGH_WATER))
        outlet = self.outbound.outlet("t1")
        spring = Spring()
        outlet.registerProducer(spring, True)
        outlet.write(b"x")
        for _ in range(2):
            self.pipe.drain()
        self.assertIn(b"x", [m.payload for m in self.pipe.sent])
        self.assertTrue(spring.paused)
        greedy.discard()
        self.assertFalse(spring.paused)

    def test_a_key_stroke_leaves_before_the_next_bulk(self) -> None:
        for name in ("a", "b", "c"):
            endless(self.outbound, name, READ)()
        self.clock.advance(0)
        for _ in range(10):
            self.pipe.drain()
        self.pipe.sent.clear()
        self.outbound.outlet("key").write(b"k")
        self.pipe.drain()
        self.assertEqual(self.pipe.sent[1].payload, b"k")

    def test_one_that_is_fresh_again_and_again_starves_nobody(self) -> None:
        endless(self.outbound, "a", READ)()
        self.clock.advance(0)
        sly = self.outbound.outlet("sly")
        for _ in range(100):
            sly.write(bytes(READ // 2))
            self.pipe.drain()
        served = {name: len(b"".join(parts)) for name, parts in streams(self.pipe.sent).items()}
        self.assertGreater(served["a"], served["sly"] // 2)

    def test_room_is_told_at_once_when_nothing_waits(self) -> None:
        self.assertTrue(self.successResultOf(self.outbound.room()))

    def test_room_comes_after_the_control_frames_and_a_turn_of_the_tunnels(self) -> None:
        endless(self.outbound, "a", READ)()
        self.clock.advance(0)
        self.pipe.sent.clear()
        self.outbound.control(bytes(2 * self.pipe.capacity))
        room = self.outbound.room()
        self.pipe.drain()
        self.assertEqual(len(self.pipe.sent), 1)
        self.assertNoResult(room)
        self.pipe.drain()
        self.assertGreater(len(streams(self.pipe.sent)["a"]), 0)
        self.assertTrue(self.successResultOf(room))

    def test_a_lost_link_drops_everything_and_later_calls_do_nothing(self) -> None:
        self.fill()
        outlet = self.outbound.outlet("t1")
        spring = Spring()
        outlet.registerProducer(spring, True)
        outlet.write(bytes(2 * HIGH_WATER))
        self.outbound.control(b"c")
        room = self.outbound.room()
        self.outbound.lost()
        self.assertFalse(self.successResultOf(room))
        outlet.write(b"x")
        outlet.frame(b"f")
        outlet.finish(b"f")
        outlet.discard()
        self.outbound.control(b"c")
        self.outbound.outlet("t2").write(b"x")
        self.outbound.lost()
        self.pipe.drain()
        self.assertEqual((self.pipe.sent, self.outbound.total, self.outbound.control_waiting), ([], 0, 0))
        self.assertEqual(spring.pauses, 1)
        self.assertFalse(self.successResultOf(self.outbound.room()))


_step = strategies.one_of(
    strategies.tuples(
        strategies.just("write"), strategies.integers(0, 4), strategies.integers(1, 3 * MOST_CHUNK)
    ),
    strategies.tuples(strategies.just("write"), strategies.integers(0, 4), strategies.integers(1, 64)),
    strategies.tuples(strategies.just("frame"), strategies.integers(0, 4), strategies.just(0)),
    strategies.tuples(strategies.just("control"), strategies.just(0), strategies.integers(1, 2000)),
    strategies.tuples(strategies.sampled_from(["drain", "turn"]), strategies.just(0), strategies.just(0)),
    strategies.tuples(strategies.just("finish"), strategies.integers(0, 4), strategies.just(0)),
    strategies.tuples(strategies.just("discard"), strategies.integers(0, 4), strategies.just(0)),
)


class _Watched(Pipe):
    """Asserts at every tunnel's message that no control frame waits."""

    outbound: Outbound

    def send_message(
        self, payload: bytes, binary: bool, compress: bool, history: object | None = None
    ) -> int:
        if not payload.startswith(b"control"):
            assert self.outbound.control_waiting == 0, "a tunnel before a control frame"
        return super().send_message(payload, binary, compress, history)


class SchedulerProperties(SynchronousTestCase):
    @given(strategies.lists(_step, max_size=60), strategies.sampled_from([1, 1000, READ, 2 * MOST_CHUNK]))
    def test_everything_leaves_once_whole_and_in_order(
        self, steps: list[tuple[str, int, int]], capacity: int
    ) -> None:
        pipe = _Watched(capacity)
        clock = Clock()
        pipe.outbound = outbound = Outbound(pipe, clock)
        controls: list[bytes] = []
        # Five tunnels; one that ended begins anew under another id.
        names = [f"{tunnel}.0" for tunnel in range(5)]
        outlets = [outbound.outlet(name) for name in names]
        springs = [Spring() for _ in names]
        for outlet, spring in zip(outlets, springs, strict=True):
            outlet.registerProducer(spring, True)
        expected: dict[str, list[bytes]] = {}
        discarded: set[str] = set()
        for number, (what, tunnel, size) in enumerate(steps):
            name = names[tunnel]
            parts = expected.setdefault(name, [])
            if what == "write":
                data = (b"%d," % number * size)[:size]
                if parts and parts[-1].startswith(b"data:"):
                    parts[-1] += data
                else:
                    parts.append(b"data:" + data)
                outlets[tunnel].write(data)
            elif what == "frame":
                parts.append(b"frame %s %d" % (name.encode(), number))
                outlets[tunnel].frame(parts[-1])
            elif what == "control":
                controls.append(b"control %d" % number + bytes(size))
                outbound.control(controls[-1])
            elif what == "drain":
                pipe.drain()
            elif what == "turn":
                clock.advance(0)
                self.assertTrue(pipe.full or outbound.total == outbound.control_waiting == 0)
            else:
                if what == "finish":
                    parts.append(b"frame %s close" % name.encode())
                    outlets[tunnel].finish(parts[-1])
                else:
                    discarded.add(name)
                    outlets[tunnel].discard()
                names[tunnel] = f"{tunnel}.{number + 1}"
                outlets[tunnel] = outbound.outlet(names[tunnel])
                springs[tunnel] = Spring()
                outlets[tunnel].registerProducer(springs[tunnel], True)
        clock.advance(0)
        while pipe.full:
            pipe.drain()
        found = streams(pipe.sent)
        for name, parts in expected.items():
            got = found.get(name, [])
            if name in discarded:
                self.assertTrue(b"".join(parts).startswith(b"".join(got)), name)
            else:
                self.assertEqual(got, parts)
        self.assertEqual([m.payload for m in pipe.sent if m.payload.startswith(b"control")], controls)
        self.assertEqual((outbound.total, outbound.control_waiting), (0, 0))
        self.assertEqual([spring.paused for spring in springs], [False] * 5)

    @settings(max_examples=30)
    @given(
        strategies.lists(strategies.integers(1000, 2 * MOST_CHUNK), min_size=2, max_size=6),
        strategies.sampled_from([1000, READ, 2 * MOST_CHUNK]),
    )
    def test_busy_tunnels_get_the_same_whatever_they_write(self, sizes: list[int], capacity: int) -> None:
        pipe = Pipe(capacity)
        clock = Clock()
        outbound = Outbound(pipe, clock)
        pipe.send_message(bytes(capacity + 1), False, False)
        for number, size in enumerate(sizes):
            endless(outbound, f"{number}", size)()
        for _ in range(30 * len(sizes)):
            pipe.drain()
            self.assertLessEqual(outbound.total, len(sizes) * (HIGH_WATER + 2 * MOST_CHUNK + 2 * UNIT_COST))
        served = [len(b"".join(parts)) for parts in streams(pipe.sent).values()]
        self.assertEqual(len(served), len(sizes))
        # Small pieces pay for their headers, hence the seventh; the rest is the bound of start-time fairness.
        self.assertLessEqual(max(served) - min(served), 2 * MOST_CHUNK + max(served) // 7)
