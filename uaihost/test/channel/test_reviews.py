"""Rounds of review: who is asked, when, and when nobody is."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from uaihost.channel import reviews
from uaihost.channel.reviews import Round

CREW = ["r", "s"]


class RoundTests(TestCase):
    def changed(self) -> Round:
        before = reviews.look(reviews.begun(Round(), "1"), "I did it")
        round_, asks = reviews.found(before, "2", CREW)
        self.assertTrue(asks)
        return round_

    def test_reviewers_are_asked_in_order(self) -> None:
        first = self.changed()
        self.assertEqual((first.stage, first.left, first.answer), ("asked", ("r", "s"), "I did it"))
        second, asks = reviews.answered(first, "r", True, False, CREW)
        self.assertEqual((second.stage, second.left, asks), ("asked", ("s",), True))
        last, asks = reviews.answered(second, "s", True, False, CREW)
        self.assertEqual((last.stage, last.left, asks), ("", (), False))

    def test_one_that_addresses_the_author_lets_it_speak_first(self) -> None:
        round_, asks = reviews.answered(self.changed(), "r", True, True, CREW)
        self.assertEqual((round_.stage, round_.left, asks), ("addressed", ("s",), False))
        look = reviews.look(reviews.begun(round_, "2"), "no")
        same, asks = reviews.found(look, "2", CREW)
        self.assertEqual((same.stage, same.left, asks), ("asked", ("s",), True))
        again, asks = reviews.found(look, "3", CREW)
        self.assertEqual((again.stage, again.left, asks), ("asked", ("r", "s"), True))

    def test_the_last_one_that_addresses_the_author_ends_the_round_unless_it_changes_something(self) -> None:
        second, _ = reviews.answered(self.changed(), "r", True, False, CREW)
        round_, _ = reviews.answered(second, "s", True, True, CREW)
        look = reviews.look(reviews.begun(round_, "2"), "no")
        same, asks = reviews.found(look, "2", CREW)
        self.assertEqual((same.stage, same.left, asks), ("", (), False))

    def test_a_word_to_the_author_meanwhile_that_changes_nothing_asks_nobody_twice(self) -> None:
        look = reviews.look(reviews.begun(self.changed(), "2"), "so it is")
        after, asks = reviews.found(look, "2", CREW)
        self.assertEqual((after.stage, after.left, asks), ("asked", ("r", "s"), False))
        after, asks = reviews.found(look, "3", CREW)
        self.assertEqual((after.stage, after.left, asks), ("asked", ("r", "s"), True))

    def test_an_author_that_works_before_the_reviewer_has_ended_is_reviewed_anew(self) -> None:
        look = reviews.look(reviews.begun(self.changed(), "2"), "mended")
        anew, asks = reviews.found(look, "3", CREW)
        self.assertEqual((anew.asked, asks), (("r", "r"), True))
        first, asks = reviews.answered(anew, "r", True, True, CREW)
        self.assertEqual((first.stage, first.left, asks), ("asked", ("r", "s"), False))
        second, asks = reviews.answered(first, "r", True, False, CREW)
        self.assertEqual((second.left, second.asked, asks), (("s",), ("s",), True))

    def test_an_author_that_has_said_its_word_is_not_waited_for(self) -> None:
        look = reviews.look(reviews.begun(self.changed(), "2"), "no")
        spoke, _ = reviews.found(look, "2", CREW)
        after, asks = reviews.answered(spoke, "r", True, True, CREW)
        self.assertEqual((after.stage, after.left, asks), ("asked", ("s",), True))
        last, asks = reviews.answered(after, "s", True, True, CREW)
        self.assertEqual((last.stage, asks), ("addressed", False))

    def test_a_review_that_came_to_no_end_is_owed_still(self) -> None:
        cut, asks = reviews.answered(self.changed(), "r", False, False, CREW)
        self.assertEqual((cut.stage, cut.left, cut.asked, asks), ("asked", ("r", "s"), (), False))
        after, asks = reviews.answered(cut, "r", True, False, CREW)
        self.assertEqual((after.left, asks), (("s",), True))

    def test_who_has_left_the_crew_is_not_waited_for(self) -> None:
        after, asks = reviews.answered(self.changed(), "r", True, False, ["r"])
        self.assertEqual((after.stage, after.left, asks), ("", (), False))

    def test_what_is_no_answer_changes_nothing(self) -> None:
        first = self.changed()
        self.assertEqual(reviews.answered(first, "s", True, False, CREW), (first, False))
        self.assertEqual(reviews.answered(Round(), "r", True, True, CREW), (Round(), False))

    def test_nobody_is_asked_without_a_change_or_a_reviewer_or_a_mark(self) -> None:
        look = reviews.look(reviews.begun(Round(), "1"), "")
        for before, mark, crew in (
            (look, "1", CREW),
            (look, "2", []),
            (look, "", CREW),
            (reviews.look(reviews.begun(Round(), ""), ""), "2", CREW),
        ):
            after, asks = reviews.found(before, mark, crew)
            self.assertEqual((after.stage, after.mark, asks), ("", "", False))

    def test_a_turn_that_came_to_no_end_is_compared_with_before_it(self) -> None:
        again = reviews.begun(reviews.begun(Round(), "1"), "2")
        self.assertEqual(again.mark, "1")

    def test_a_reviewer_is_told_whom_to_address(self) -> None:
        text = reviews.request("a", "All tests pass.")
        self.assertIn("@a", text)
        self.assertIn("All tests pass.", text)
        self.assertNotIn("said of it", reviews.request("a", " "))


class StoredTests(TestCase):
    def test_a_row_is_read_as_it_was_stored(self) -> None:
        self.assertEqual(reviews.restored({}), Round())
        fields = {
            "mark": "m",
            "looking": True,
            "stage": "addressed",
            "left": ["s"],
            "asked": ["r"],
            "spoke": True,
        }
        fields["answer"] = "x"
        self.assertEqual(reviews.restored(fields), Round("m", True, "addressed", ("s",), ("r",), True, "x"))

    def test_a_look_owed_by_an_older_version_is_still_owed(self) -> None:
        old = {"mark": "m", "stage": "looking", "left": [], "answer": "x"}
        self.assertEqual(reviews.restored(old), Round("m", True, answer="x"))
        after, asks = reviews.found(reviews.restored(old), "n", CREW)
        self.assertEqual((after.left, asks), (("r", "s"), True))
        old = {"mark": "m", "stage": "asked", "left": ["r", "s"], "answer": "x"}
        self.assertEqual(reviews.restored(old), Round("m", False, "asked", ("r", "s"), answer="x"))
