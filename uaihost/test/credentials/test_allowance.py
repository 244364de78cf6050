"""How often a task may use its owner's credentials."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.credentials.allowance import Allowance
from uaihost.test.support import given, strategies


class AllowanceTests(SynchronousTestCase):
    def test_a_burst_and_then_a_rate(self) -> None:
        clock = Clock()
        allowance = Allowance(clock, 3, 2)
        self.assertEqual([allowance.take() for _ in range(4)], [True, True, True, False])
        clock.advance(0.5)
        self.assertEqual([allowance.take(), allowance.take()], [True, False])
        clock.advance(3600)
        self.assertEqual([allowance.take() for _ in range(4)], [True, True, True, False])

    @given(strategies.lists(strategies.floats(0, 5), max_size=60))
    def test_never_more_than_the_burst_and_the_rate(self, pauses: list[float]) -> None:
        clock = Clock()
        allowance = Allowance(clock, 5, 2)
        taken = 0
        for pause in pauses:
            clock.advance(pause)
            taken += allowance.take()
        self.assertLessEqual(taken, 5 + 2 * sum(pauses) + 1e-6)
