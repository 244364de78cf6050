"""The words of the channel: history for newcomers, answers to orders, what agents chose to show, audit."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import attrs
from twisted.trial.unittest import TestCase

from uaihost.channel import governor, history, orders
from uaihost.channel.books import audit
from uaihost.channel.governor import Budgets, Spent
from uaihost.channel.permissions import NOBODY
from uaihost.channel.shown import shown
from uaihost.state.channel import AgentRow, AuthorKind, MessageRow, PermissionRow, RuleRow, UsageRow
from uaihost.test.support import given, strategies

ADA = AgentRow(
    task_id="t1",
    agent_id="ada",
    position=0,
    present=True,
    label="Ada",
    kind="claude",
    model="m",
    instructions="",
)


def said(text: str, kind: AuthorKind = "user", who: str = "ann") -> MessageRow:
    return MessageRow("t1", 1, "m", 0, kind, who, who.upper(), text, ())


class HistoryTests(TestCase):
    def test_who_said_what_oldest_first(self) -> None:
        rows = [said("hello"), said("hi", "agent", "ada"), said("a note", "system", "system")]
        told = history.history(rows)
        self.assertEqual(told, f"{history.HEAD}\n\nANN: hello\n\n@ada: hi\n\nSYSTEM: a note")

    def test_notes_alone_are_no_history(self) -> None:
        self.assertEqual(history.history([]), "")
        self.assertEqual(history.history([said("a note", "system", "system")]), "")

    def test_a_long_message_is_cut_and_says_by_how_much(self) -> None:
        told = history.history([said("x" * (history.LONGEST + 5))])
        self.assertTrue(told.endswith("x\n[5 more characters]"))

    def test_the_newest_stay_and_what_is_left_out_is_counted(self) -> None:
        rows = [said(f"{number:04} " + "x" * 1000) for number in range(100)]
        told = history.history(rows)
        kept = [number for number in range(100) if f"{number:04} " in told]
        self.assertEqual(kept, list(range(100 - len(kept), 100)))
        self.assertIn(f"[{100 - len(kept)} earlier messages are left out]", told)
        self.assertGreater(len(kept), 40)

    @given(strategies.lists(strategies.integers(0, 20_000), max_size=20))
    def test_it_is_bounded_however_much_was_said(self, sizes: list[int]) -> None:
        told = history.history([said("x" * size) for size in sizes])
        self.assertLess(len(told), history.LIMIT + 500)


class OrderTests(TestCase):
    def status(self, row: AgentRow = ADA, waiting: int = 0, used: UsageRow | None = None) -> list[str]:
        by_agent = {"ada": used} if used else {}
        return orders.status([(row, "busy")], {"ada": waiting}, by_agent, Spent(), Budgets()).split("\n")

    def test_a_line_for_each_agent_and_one_for_the_budgets(self) -> None:
        self.assertEqual(
            self.status(),
            [
                "@ada (claude, m): busy",
                "Used by agents alone since a person spoke: words to one another: 0 of 8, turns: 0 of 40, "
                "tokens: 0 of 5000000",
            ],
        )
        self.assertEqual(orders.status([], {}, {}, Spent(), Budgets()), "No agent is in this task.")

    def test_what_waits_what_was_used_and_until_when_it_is_parked(self) -> None:
        parked = attrs.evolve(ADA, model=None, parked_until=1_700_000_000_000)
        used = UsageRow("ada", 12_345, 678, 0.5)
        line = "@ada (claude): busy; usage limit until 22:13 UTC; 2 waiting; 12,345 tokens read, 678 written"
        self.assertEqual(self.status(parked, 2, used)[0], f"{line}, $0.50")
        self.assertEqual(self.status(parked, 2, UsageRow("ada", 12_345, 678, None))[0], line)

    def test_a_pause_says_what_it_is_and_how_it_ends(self) -> None:
        for name in ("hops", "turns", "tokens", "minutes", "ping-pong"):
            spent = Spent(paused=name)
            told = orders.status([(ADA, "idle")], {}, {}, spent, Budgets())
            self.assertEqual(told.split("\n")[1], governor.notice(spent, Budgets()))
            self.assertIn("Any word from you lets them go on", told)

    def test_rules_name_who_made_them_and_how_they_are_taken_back(self) -> None:
        self.assertIn("No tool is accepted", orders.rules([]))
        told = orders.rules([RuleRow("t1", "Run", "ann", 1), RuleRow("t1", "Edit", "bob", 2)])
        self.assertEqual(
            told,
            "Accepted in this task without asking: Run (by ann), Edit (by bob). To be asked again: /ask TOOL",
        )


class ShownTests(TestCase):
    def test_what_cannot_be_seen_is_written_out(self) -> None:
        for text, seen in (
            ("plain ü 漢 🙂", "plain ü 漢 🙂"),
            ("two\nlines\tand", "two lines and"),
            ("rm \u202egnp.x", "rm \\u{202e}gnp.x"),
            ("a\u200bb\u2066c", "a\\u{200b}b\\u{2066}c"),
            ("\x1b[31mred\x00", "\\u{1b}[31mred\\u{0}"),
            ("hid\U000e0041den", "hid\\u{e0041}den"),
            ("line\u2028end", "line\\u{2028}end"),
            ("half \ud800", "half \\u{d800}"),
        ):
            self.assertEqual(shown(text), seen)

    @given(strategies.text(max_size=40))
    def test_it_is_one_line_of_what_can_be_seen(self, text: str) -> None:
        seen = shown(text)
        self.assertEqual(seen.splitlines()[1:], [])
        self.assertFalse([each for each in seen if unicodedata.category(each) in {"Cf", "Cc", "Cs", "Co"}])
        self.assertEqual(shown(seen), seen)


class AuditTests(TestCase):
    ROW = PermissionRow(
        task_id="t1",
        agent_id="ada",
        request_id="r",
        asked_as="r",
        at=0,
        tool="Run",
        title="ls \u202e x",
        input="{}",
        input_hash="h",
        decision="accept",
        decided_by="ann",
    )

    def told(self, **changes: Any) -> str:
        return audit(attrs.evolve(self.ROW, **changes))

    def test_who_decided_what(self) -> None:
        self.assertEqual(self.told(), "@ada asked for ls \\u{202e} x: accepted by ann.")
        self.assertIn(": declined by bob.", self.told(decision="decline", decided_by="bob"))
        self.assertIn("since nobody answered in time.", self.told(decision="decline", decided_by=NOBODY))

    def test_a_decision_for_the_task_and_answers_are_in_it(self) -> None:
        self.assertIn("; Run is accepted in this task from now on.", self.told(scope="task"))
        answers = json.dumps({"Which\none?": "the \u200bfirst"})
        self.assertTrue(self.told(answers=answers).endswith(".\nWhich one?: the \\u{200b}first"))
