"""Budgets: counted since a person spoke, held when used up."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.trial.unittest import TestCase

from uaihost.channel import governor
from uaihost.channel.governor import PING_PONG, Budgets, Spent
from uaihost.test.support import given, strategies

BUDGETS = Budgets(hops=2, turns=3, tokens=100, minutes=5)
AGENT, PERSON = "agent:a", "user:ann"
Step = Callable[[Spent, Budgets], Spent]

STEPS: list[tuple[str, Step]] = [
    ("hop", lambda spent, budgets: governor.hop(spent, budgets, 1)),
    ("turn", lambda spent, budgets: governor.began(spent, budgets, AGENT, 1)),
    ("persons turn", lambda spent, budgets: governor.began(spent, budgets, PERSON, 1)),
    ("tokens", lambda spent, budgets: governor.used(spent, budgets, 30)),
    ("talk", lambda spent, budgets: governor.ended(spent, budgets, AGENT, 0)),
    ("work", lambda spent, budgets: governor.ended(spent, budgets, AGENT, 2)),
]


class BudgetTests(TestCase):
    def after(self, step: Step, times: int) -> Spent:
        spent = governor.spoken(1)
        for _ in range(times):
            spent = step(spent, BUDGETS)
        return spent

    def test_each_budget_pauses_when_it_is_used_up_and_not_before(self) -> None:
        steps = dict(STEPS)
        for name, step, times in (
            # The third word is the one that waits.
            ("hops", steps["hop"], 3),
            ("turns", steps["turn"], 3),
            ("tokens", steps["tokens"], 4),
            ("ping-pong", steps["talk"], PING_PONG),
        ):
            self.assertEqual(self.after(step, times - 1).paused, "", name)
            spent = self.after(step, times)
            self.assertEqual(spent.paused, name)
            self.assertIn("Any word from you", governor.notice(spent, BUDGETS))

    def test_time_counts_from_the_word(self) -> None:
        spent = governor.spoken(1000)
        self.assertEqual(governor.timed(spent, BUDGETS, 1000 + 5 * 60_000 - 1).paused, "")
        self.assertEqual(governor.timed(spent, BUDGETS, 1000 + 5 * 60_000).paused, "minutes")
        self.assertEqual(governor.timed(Spent(), BUDGETS, 1 << 50).paused, "", "nobody has spoken yet")

    def test_work_ends_a_row_of_talk_and_a_persons_turn_is_no_talk(self) -> None:
        steps = dict(STEPS)
        spent = self.after(steps["talk"], PING_PONG - 1)
        self.assertEqual(steps["work"](spent, BUDGETS).idle, 0)
        self.assertEqual(governor.ended(spent, BUDGETS, PERSON, 0).idle, 0)

    def test_without_limits_nothing_pauses_but_talk(self) -> None:
        spent, none = Spent(since=1), Budgets(0, 0, 0, 0)
        for _ in range(1000):
            for name, step in STEPS:
                if name != "talk":
                    spent = step(spent, none)
        self.assertEqual(governor.timed(spent, none, 1 << 50).paused, "")

    @given(strategies.lists(strategies.sampled_from(STEPS), max_size=40))
    def test_a_pause_holds_agents_and_never_people_until_somebody_speaks(
        self, steps: list[tuple[str, Step]]
    ) -> None:
        spent, paused = governor.spoken(1), ""
        for _, step in steps:
            spent = step(spent, BUDGETS)
            if paused:
                self.assertEqual(spent.paused, paused, "a pause was lifted by an agent")
            paused = spent.paused
            self.assertTrue(governor.may_begin(spent, PERSON))
            self.assertEqual(governor.may_begin(spent, AGENT), not paused)
            self.assertEqual(governor.may_begin(spent, "system"), not paused)
        self.assertEqual(attrs.evolve(governor.spoken(1), since=0), Spent())
