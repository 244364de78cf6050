"""What may wait for upstreams, and what happens beyond it."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.fakes_tunnels import FakeLink
from uaihost.test.support import given, strategies
from uaihost.tunnels.budget import (
    HIGH_WATER,
    HOLD_LIMIT,
    LOW_WATER,
    TOTAL_HIGH_WATER,
    TOTAL_LOW_WATER,
    Budget,
    Share,
)


class BudgetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.link = FakeLink()
        self.budget = Budget(self.clock, self.link)
        self.given_up: list[str] = []
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))
        self.addCleanup(self.budget.close)

    def account(self, name: str = "a") -> Share:
        def too_long(reason: str) -> None:
            self.given_up.append(name)
            self.assertIn("30 s", reason)
            made.close()

        made = self.budget.account(too_long)
        return made

    def test_the_link_is_held_above_the_high_mark_and_released_at_the_low_one(self) -> None:
        account = self.account()
        account.add(HIGH_WATER - 1)
        self.assertEqual(self.link.holds, [])
        account.add(LOW_WATER)
        self.assertEqual(len(self.link.holds), 1)
        account.add(5)
        self.assertEqual(len(self.link.history), 1)
        account.remove(5)
        account.remove(HIGH_WATER - 1)
        self.assertEqual(self.link.holds, [])
        self.clock.advance(HOLD_LIMIT * 2)
        self.assertEqual(self.given_up, [])

    def test_a_tunnel_that_holds_for_too_long_is_given_up(self) -> None:
        account = self.account()
        account.add(HIGH_WATER)
        self.clock.advance(HOLD_LIMIT - 0.1)
        self.assertEqual(self.given_up, [])
        self.clock.advance(0.1)
        self.assertEqual(self.given_up, ["a"])
        self.assertEqual((self.link.holds, self.budget.total), ([], 0))

    def test_each_tunnel_holds_on_its_own(self) -> None:
        stuck, slow = self.account("stuck"), self.account("slow")
        stuck.add(HIGH_WATER)
        self.clock.advance(HOLD_LIMIT / 2)
        slow.add(HIGH_WATER)
        self.clock.advance(HOLD_LIMIT / 2)
        self.assertEqual((self.given_up, len(self.link.holds)), (["stuck"], 1))
        slow.remove(HIGH_WATER)
        self.assertEqual(self.link.holds, [])

    def test_many_tunnels_below_their_marks_hold_the_link_together(self) -> None:
        piece = HIGH_WATER // 2
        accounts = [self.account(str(number)) for number in range(TOTAL_HIGH_WATER // piece)]
        for account in accounts:
            account.add(piece)
        self.assertEqual(self.link.holds, [self.budget])
        for account in accounts[: len(accounts) // 2 + 1]:
            account.remove(piece)
        self.assertEqual(self.link.holds, [])
        self.assertLessEqual(self.budget.total, TOTAL_LOW_WATER)

    def test_the_worst_are_given_up_when_many_hold_for_too_long(self) -> None:
        small = [self.account(f"small {number}") for number in range(30)]
        large = [self.account(f"large {number}") for number in range(10)]
        for account in small:
            account.add(100)
        for account in large:
            account.add(HIGH_WATER - HIGH_WATER // 10)
        self.assertEqual(self.link.holds, [self.budget])
        self.clock.advance(HOLD_LIMIT)
        self.assertEqual(self.link.holds, [])
        self.assertTrue(all(name.startswith("large") for name in self.given_up))
        self.assertLessEqual(self.budget.total, TOTAL_LOW_WATER)
        self.assertGreater(len(self.given_up), 0)
        self.assertLess(len(self.given_up), 10)

    def test_nothing_is_said_to_a_link_that_is_gone(self) -> None:
        account = self.account()
        account.add(HIGH_WATER)
        self.budget.close()
        said = len(self.link.history)
        account.close()
        late = self.account()
        late.add(HIGH_WATER)
        late.close()
        self.assertEqual(len(self.link.history), said)

    @given(
        strategies.lists(
            strategies.tuples(
                strategies.integers(0, 3), strategies.integers(0, HIGH_WATER), strategies.booleans()
            )
        )
    )
    def test_the_link_is_held_exactly_while_somebody_is_over(
        self, steps: list[tuple[int, int, bool]]
    ) -> None:
        clock, link = Clock(), FakeLink()
        budget = Budget(clock, link)
        accounts = [budget.account(lambda reason: None) for _ in range(4)]
        waiting: list[list[int]] = [[] for _ in accounts]
        for index, size, add in steps:
            if add:
                accounts[index].add(size)
                waiting[index].append(size)
            elif waiting[index]:
                accounts[index].remove(waiting[index].pop(0))
            totals = [sum(sizes) for sizes in waiting]
            self.assertEqual([account.waiting for account in accounts], totals)
            self.assertEqual(budget.total, sum(totals))
            for account, total in zip(accounts, totals, strict=True):
                if total >= HIGH_WATER:
                    self.assertIn(account, link.holds)
                elif total <= LOW_WATER:
                    self.assertNotIn(account, link.holds)
        for account in accounts:
            account.close()
        self.assertEqual((link.holds, budget.total, clock.getDelayedCalls()), ([], 0, []))
