"""Draining: what is refused, what waits, what ends, and that it can be taken back."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from uaihost.commands.drain import HELD, Drain
from uaihost.errors import HostError


class FakeTurns:
    """Agents in turns, of which `interrupt_all` ends all."""

    def __init__(self) -> None:
        self.held: list[bool] = []
        self.turns = 2

    def hold(self, held: bool) -> None:
        self.held.append(held)

    async def interrupt_all(self) -> None:
        self.turns = 0

    def busy(self) -> int:
        return self.turns


class DrainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.turns = FakeTurns()
        self.refused: dict[str, str] = {}
        self.ended = 0
        self.drain = Drain(self.turns, self.refused, lambda: 3, self.end)

    def end(self) -> None:
        self.ended += 1

    def ask(self, verb: str = "host.drain", **words: Any) -> Any:
        return self.successResultOf(ensureDeferred(self.drain.verbs()[verb](words)))

    def test_it_begins_once_and_says_how_far_it_is(self) -> None:
        expected = {"draining": True, "turns": 2, "commands": 3}
        self.assertEqual((self.ask(), self.ask()), (expected, expected))
        self.assertEqual(self.turns.held, [True])
        self.assertEqual(set(self.refused), set(HELD))

    def test_now_ends_the_turns(self) -> None:
        self.assertEqual(self.ask(now=True)["turns"], 0)

    def test_it_is_taken_back(self) -> None:
        self.ask()
        self.assertEqual(self.ask(off=True)["draining"], False)
        self.assertEqual((self.turns.held, self.refused), ([True, False], {}))

    def test_taken_back_unasked_it_holds_nothing(self) -> None:
        self.ask(off=True, now=True)
        self.assertEqual((self.turns.held, self.turns.turns), ([], 2))

    def test_words_that_are_no_truth_are_refused(self) -> None:
        asked = ensureDeferred(self.drain.verbs()["host.drain"]({"now": "yes"}))
        failure = self.failureResultOf(asked, HostError)
        self.assertIn("now must be true or false", failure.getErrorMessage())
        self.assertEqual(self.turns.held, [])

    def test_the_host_is_ended_when_it_is_asked_for(self) -> None:
        self.assertEqual((self.ask("host.stop"), self.ended), ({"stopping": True}, 1))
