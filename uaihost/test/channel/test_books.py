"""The channel's books: what counts is stored with what caused it, told once, and taken back if it was not."""

from __future__ import annotations

import json

from twisted.trial.unittest import TestCase

from uaihost.agents.adapter import Usage
from uaihost.channel import governor
from uaihost.channel.books import Books
from uaihost.channel.effects import Effects
from uaihost.channel.governor import Budgets, Spent
from uaihost.state import channel as table
from uaihost.state.channel import ChannelRow, MessageRow
from uaihost.test.channel.rig import MemoryStore
from uaihost.wire import events


class BooksTests(TestCase):
    def setUp(self) -> None:
        self.store = MemoryStore()
        self.successResultOf(
            self.store.run(lambda db: table.save_channel(db, ChannelRow("t1", True, "/workspace")))
        )
        self.books = Books("t1", Budgets(hops=0, turns=0, tokens=100, minutes=0), "")

    def effects(self) -> Effects:
        return Effects(lambda text: MessageRow("t1", 1, "m", 0, "system", "system", "system", text, ()))

    def used(self, read: int, made: int, cost: float | None = None) -> Effects:
        effects = self.effects()
        self.books.used("a", Usage(read, made, cost), 7, effects)
        return effects

    def stored(self, effects: Effects) -> str:
        """What the channel's row says after it."""
        self.successResultOf(self.store.run(effects.store))
        row = self.successResultOf(self.store.run(lambda db: table.channel(db, "t1")))
        return str(row.spent)

    def test_usage_is_told_added_up_and_counted(self) -> None:
        first = self.used(30, 20, 0.5)
        self.assertEqual(first.told, [events.AgentUsage("t1", 7, "a", 30, 20, 0.5)])
        self.stored(first)
        spent = self.stored(self.used(10, 5))
        (row,) = self.successResultOf(self.store.run(lambda db: table.usage(db, "t1")))
        self.assertEqual((row.input_tokens, row.output_tokens, row.cost_usd), (40, 25, 0.5))
        self.assertEqual(json.loads(spent)["tokens"], 65)
        self.assertEqual(Books("t1", self.books.budgets, spent).spent, self.books.spent)

    def test_a_budget_that_is_used_up_is_told_of_once(self) -> None:
        notes = [
            [event.text for event in self.used(60, 0).told if isinstance(event, events.ChannelMessage)]
            for _ in range(3)
        ]
        told = governor.notice(Spent(tokens=120, paused="tokens"), self.books.budgets)
        self.assertEqual(notes, [[], [told], []])

    def test_what_was_not_stored_was_not_spent(self) -> None:
        self.stored(self.used(60, 0))
        before = self.books.spent
        lost = self.used(60, 0)
        self.assertEqual(self.books.spent.paused, "tokens")
        lost.undo()
        self.assertEqual(self.books.spent, before)
        self.assertEqual(len(self.used(60, 0).told), 2, "the pause is told with what is stored")

    def test_what_changes_nothing_is_not_written(self) -> None:
        effects = self.effects()
        self.books.spend(lambda spent, budgets: Spent(), effects)
        self.assertEqual((effects.writes, effects.undoing), ([], []))


class EffectsTests(TestCase):
    def test_what_was_done_is_taken_back_in_reverse(self) -> None:
        done: list[int] = []
        effects = Effects(lambda text: MessageRow("t1", 1, "m", 0, "system", "s", "s", text, ()))
        effects.undoing += [lambda: done.append(1), lambda: done.append(2)]
        effects.undo()
        self.assertEqual(done, [2, 1])
