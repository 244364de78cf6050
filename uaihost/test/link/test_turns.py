"""Whose turn it is, by bytes."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from uaihost.link.turns import Turns
from uaihost.test.support import given, strategies


@attrs.define(eq=False)
class Speaker:
    size: int
    bound: bool = False
    tag: int = 0
    sent: int = 0


def serve(turns: Turns[Speaker], credit: bool = True) -> Speaker:
    """One turn of whoever's it is; whoever was served has more to send."""
    speaker = turns.take(credit)
    speaker.sent += speaker.size
    turns.served(speaker, speaker.size)
    turns.add(speaker, speaker.bound)
    return speaker


class TurnsTests(SynchronousTestCase):
    @given(
        strategies.lists(strategies.integers(1, 100_000), min_size=2, max_size=8),
        strategies.integers(1, 300),
        strategies.data(),
    )
    def test_no_two_that_always_have_something_differ_by_more_than_a_turn_of_each(
        self, sizes: list[int], steps: int, data: strategies.DataObject
    ) -> None:
        turns: Turns[Speaker] = Turns()
        speakers = [Speaker(size) for size in sizes]
        # One that comes and goes disturbs nobody.
        guest = Speaker(data.draw(strategies.integers(1, 5_000)))
        for speaker in speakers:
            turns.add(speaker, False)
        there = False
        for _ in range(steps):
            if not there and data.draw(strategies.integers(0, 3)) == 0:
                turns.add(guest, False)
                there = True
            if serve(turns) is guest:
                turns.remove(guest)
                there = False
            for one in speakers:
                for other in speakers:
                    self.assertLessEqual(abs(one.sent - other.sent), one.size + other.size)

    def test_one_that_says_little_comes_before_all_that_say_much(self) -> None:
        turns: Turns[Speaker] = Turns()
        for _ in range(20):
            turns.add(Speaker(64 * 1024), False)
        for _ in range(50):
            serve(turns)
        quiet = Speaker(100)
        turns.add(quiet, False)
        waited = 0
        while serve(turns) is not quiet:
            waited += 1
        # Only those whose turn began at the same moment as its own.
        self.assertLessEqual(waited, 20)
        for _ in range(5):
            turns.remove(quiet)
            for _ in range(7):
                serve(turns)
            # Now they are at different places of their turns, and it is before all but those at the first.
            turns.add(quiet, False)
            ahead = 0
            while serve(turns) is not quiet:
                ahead += 1
            self.assertLessEqual(ahead, 20)

    def test_nobody_owes_for_what_it_sent_alone(self) -> None:
        turns: Turns[Speaker] = Turns()
        first, second = Speaker(1000), Speaker(1000)
        turns.add(first, False)
        for _ in range(10):
            self.assertIs(serve(turns), first)
        turns.remove(first)
        turns.served(first, 0)
        turns.add(second, False)
        turns.add(first, False)
        served = [serve(turns) for _ in range(10)]
        self.assertEqual(served.count(first), 5)

    def test_without_credit_those_that_need_it_are_left_out_and_lose_no_place(self) -> None:
        turns: Turns[Speaker] = Turns()
        bound = [Speaker(1000, bound=True) for _ in range(3)]
        free = Speaker(1000)
        for speaker in bound:
            turns.add(speaker, True)
        self.assertFalse(turns.any(False))
        self.assertTrue(turns.any(True))
        turns.add(free, False)
        for _ in range(10):
            self.assertIs(serve(turns, credit=False), free)
        self.assertEqual([serve(turns) for _ in range(3)], bound)
        self.assertEqual(len(turns), 4)
        self.assertEqual(set(map(id, turns.clear())), set(map(id, [*bound, free])))
        self.assertEqual((len(turns), turns.any(True)), (0, False))
