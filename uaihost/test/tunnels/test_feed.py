"""Bytes of the bridge on their way up."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.fakes_tunnels import FakeLink
from uaihost.test.support import given, strategies
from uaihost.test.tunnels.memory import Wire
from uaihost.tunnels.budget import Budget
from uaihost.tunnels.feed import PIECE, Feed


class FeedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.written: list[bytes] = []
        self.budget = Budget(Clock(), FakeLink())
        self.account = self.budget.account(self.fail)
        self.feed = Feed(self.account, self.written.append, lambda: self.written.append(b"<end>"))
        self.wire = Wire()

    def test_what_comes_before_the_socket_waits_for_it(self) -> None:
        self.feed.put(b"one")
        self.feed.put(b"two")
        self.feed.end()
        self.assertEqual(self.written, [])
        self.assertEqual(self.account.waiting, 6)
        self.feed.attach(self.wire)
        self.assertEqual((self.written, self.account.waiting), ([b"one", b"two", b"<end>"], 0))

    def test_nothing_is_kept_while_the_socket_takes_it(self) -> None:
        self.feed.attach(self.wire)
        piece = b"one"
        self.feed.put(piece)
        self.assertIs(self.written[0], piece)
        self.assertEqual(self.account.waiting, 0)

    def test_a_full_socket_makes_it_wait_and_the_end_too(self) -> None:
        self.feed.attach(self.wire)
        self.wire.full()
        self.feed.put(b"one")
        self.feed.end()
        self.assertEqual(self.written, [])
        self.wire.drained()
        self.assertEqual(self.written, [b"one", b"<end>"])

    def test_it_stops_as_soon_as_the_socket_is_full_again(self) -> None:
        written: list[bytes] = []

        def write(data: bytes) -> None:
            written.append(data)
            self.wire.full()

        feed = Feed(self.budget.account(self.fail), write, lambda: written.append(b"<end>"))
        pieces = [bytes([number]) * PIECE for number in range(3)]
        for piece in pieces:
            feed.put(piece)
        feed.end()
        feed.attach(self.wire)
        for expected in (pieces[:1], pieces[:2], pieces):
            self.assertEqual(written, expected)
            self.wire.drained()
        self.assertEqual(written[-1], b"<end>")

    def test_what_follows_the_end_is_dropped(self) -> None:
        self.feed.attach(self.wire)
        self.feed.end()
        self.feed.put(b"late")
        self.feed.end()
        self.assertEqual(self.written, [b"<end>"])

    def test_the_end_is_told_again_to_another_socket(self) -> None:
        self.feed.attach(self.wire)
        self.feed.end()
        self.feed.detach()
        self.feed.attach(Wire())
        self.assertEqual(self.written, [b"<end>", b"<end>"])

    def test_closing_gives_everything_back(self) -> None:
        self.feed.attach(self.wire)
        self.wire.full()
        self.feed.put(b"one" * 1000)
        self.feed.close()
        self.assertEqual((self.budget.total, self.wire.producer, self.written), (0, None, []))
        self.feed.put(b"late")
        self.assertEqual(self.budget.total, 0)

    def test_flushing_writes_what_waits_whatever_the_socket_says(self) -> None:
        self.feed.attach(self.wire)
        self.wire.full()
        self.feed.put(b"one")
        self.feed.put(b"two")
        self.feed.flush()
        self.assertEqual((self.written, self.budget.total), ([b"one", b"two"], 0))

    def test_a_piece_that_comes_while_another_is_written_does_not_overtake(self) -> None:
        written: list[bytes] = []

        def write(data: bytes) -> None:
            if data == b"one":
                feed.put(b"three")
            written.append(data)

        feed = Feed(self.budget.account(self.fail), write, lambda: None)
        feed.put(b"one")
        feed.put(b"two")
        feed.attach(self.wire)
        self.assertEqual(b"".join(written), b"onetwothree")

    def test_tiny_pieces_are_joined(self) -> None:
        for _ in range(3 * PIECE):
            self.feed.put(b"x")
        self.feed.attach(self.wire)
        self.assertEqual(b"".join(self.written), b"x" * (3 * PIECE))
        self.assertLessEqual(len(self.written), 4)
        self.assertTrue(all(type(piece) is bytes for piece in self.written))

    def test_every_byte_that_the_socket_takes_is_told_once(self) -> None:
        told: list[str] = []

        class Told:
            def passed(self, size: int) -> None:
                told.append(f"passed {size}")

            def add(self, size: int) -> None:
                told.append(f"add {size}")

            def remove(self, size: int) -> None:
                told.append(f"remove {size}")

            def close(self) -> None:
                told.append("close")

        feed = Feed(Told(), self.written.append, lambda: None)
        feed.put(b"early")
        feed.attach(self.wire)
        feed.put(b"through")
        self.wire.full()
        feed.put(b"late")
        feed.close()
        self.assertEqual(told, ["add 5", "remove 5", "passed 7", "add 4", "close"])

    @given(strategies.lists(strategies.one_of(strategies.binary(max_size=5), strategies.booleans())))
    def test_order_is_kept_whatever_the_socket_does(self, steps: list[bytes | bool]) -> None:
        written: list[bytes] = []
        budget = Budget(Clock(), FakeLink())
        feed = Feed(budget.account(self.fail), written.append, lambda: written.append(b"<end>"))
        wire = Wire()
        feed.attach(wire)
        for step in steps:
            if isinstance(step, bytes):
                feed.put(step)
            elif step:
                wire.full()
            else:
                wire.drained()
        wire.drained()
        feed.end()
        self.assertEqual(b"".join(written), b"".join(s for s in steps if isinstance(s, bytes)) + b"<end>")
        self.assertEqual(budget.total, 0)
