"""Rounds of review: who is asked, when, and when nobody is."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from uaihost.channel import reviews
from uaihost.channel.reviews import Round


class RoundTests(TestCase):
    def changed(self) -> Round:
        return reviews.found(reviews.look(reviews.begun("1"), "I did it"), "2", ["r", "s"])

    def test_reviewers_are_asked_in_order(self) -> None:
        first = self.changed()
        self.assertEqual((first.stage, first.left, first.answer), ("asked", ("r", "s"), "I did it"))
        second = reviews.answered(first, "r", addressed=False)
        self.assertEqual((second.stage, second.left), ("asked", ("s",)))
        self.assertEqual(reviews.answered(second, "s", addressed=False).stage, "")

    def test_one_that_addresses_the_author_ends_the_round(self) -> None:
        self.assertEqual(reviews.answered(self.changed(), "r", addressed=True).stage, "")

    def test_what_is_no_answer_changes_nothing(self) -> None:
        first = self.changed()
        self.assertEqual(reviews.answered(first, "s", addressed=False), first)
        self.assertEqual(reviews.answered(Round(), "r", addressed=True), Round())

    def test_nobody_is_asked_without_a_change_or_a_reviewer_or_a_mark(self) -> None:
        look = reviews.look(reviews.begun("1"), "")
        self.assertEqual(reviews.found(look, "1", ["r"]).stage, "")
        self.assertEqual(reviews.found(look, "2", []).stage, "")
        self.assertEqual(reviews.found(reviews.look(Round(), ""), "2", ["r"]).stage, "")

    def test_a_reviewer_is_told_whom_to_address(self) -> None:
        text = reviews.request("a", "All tests pass.")
        self.assertIn("@a", text)
        self.assertIn("All tests pass.", text)
        self.assertNotIn("said of it", reviews.request("a", " "))
