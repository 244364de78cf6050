"""A person hears of each blocked destination, and of no flood."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.egress.names import Destination
from uaihost.egress.refusals import MOST, QUIET, Refusals

A = Destination("a.example", 443)
B = Destination("b.example", 443)


class RefusalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, Destination, str]] = []
        self.refusals = Refusals(self.clock, lambda *what: self.told.append(what))

    def test_each_destination_of_each_task_is_told(self) -> None:
        for task, to in (("t1", A), ("t1", B), ("t2", A), ("t1", Destination("a.example", 80))):
            self.refusals.add(task, to, "why")
        self.assertEqual(len(self.told), 4)
        self.assertEqual(self.told[0], ("t1", A, "why"))

    def test_once_in_a_while(self) -> None:
        self.refusals.add("t1", A, "why")
        self.clock.advance(QUIET - 1)
        self.refusals.add("t1", A, "why")
        self.assertEqual(len(self.told), 1)
        # Asking again in between does not put it off.
        self.clock.advance(1)
        self.refusals.add("t1", A, "why")
        self.assertEqual(len(self.told), 2)

    def test_a_flood_is_told_in_part_and_says_so(self) -> None:
        for number in range(10 * MOST):
            self.refusals.add("t1", Destination(f"n{number}.example", 443), "why")
        self.assertEqual(len(self.told), MOST)
        self.assertIn("not shown", self.told[-1][2])
        self.refusals.add("t2", A, "why")
        self.assertEqual(self.told[-1], ("t2", A, "why"))
        self.clock.advance(QUIET)
        self.refusals.add("t1", A, "why")
        self.assertEqual(self.told[-1], ("t1", A, "why"))

    def test_a_task_that_is_gone_is_forgotten(self) -> None:
        self.refusals.add("t1", A, "why")
        self.refusals.forget("t1")
        self.refusals.add("t1", A, "why")
        self.assertEqual(len(self.told), 2)

    def test_who_listens_badly_harms_nothing(self) -> None:
        def fail(*what: object) -> None:
            raise RuntimeError("listener")

        Refusals(self.clock, fail).add("t1", A, "why")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
