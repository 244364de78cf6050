"""Rounds of review: who is asked, when, and when nobody is."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import TestCase

from uaihost.channel import reviews
from uaihost.channel.reviews import Round
from uaihost.test.support import given, strategies

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


MOVES = strategies.one_of(
    strategies.tuples(strategies.just("author"), strategies.booleans(), strategies.booleans()),
    strategies.tuples(strategies.sampled_from(CREW), strategies.booleans(), strategies.booleans()),
)


class AnyOrderTests(TestCase):
    """The author works when it likes, reviewers answer what they are asked when they like, or fail."""

    def setUp(self) -> None:
        self.files = 0
        self.owed: list[str] = []

    def author(self, round_: Round, changes: bool, known: bool = True) -> Round:
        before = reviews.look(reviews.begun(round_, str(self.files)), "")
        self.files += changes
        after, asks = reviews.found(before, str(self.files) if known else "", CREW)
        if changes and known:
            self.assertEqual((asks, after.left), (True, tuple(CREW)))
        return self.ask(after, asks)

    def answer(self, round_: Round, reviewer: str, done: bool, addressed: bool) -> Round:
        self.owed.remove(reviewer)
        after, asks = reviews.answered(round_, reviewer, done, addressed, CREW)
        return self.ask(after, asks)

    def ask(self, round_: Round, asks: bool) -> Round:
        if asks:
            self.owed.append(round_.left[0])
        self.assertEqual(sorted(round_.asked), sorted(self.owed))
        return round_

    @given(strategies.lists(MOVES, max_size=30))
    def test_every_change_is_reviewed_and_every_round_can_end(
        self, moves: list[tuple[str, bool, bool]]
    ) -> None:
        self.setUp()
        round_ = Round()
        for who, first, second in moves:
            if who == "author":
                round_ = self.author(round_, first, second)
            elif who in self.owed:
                round_ = self.answer(round_, who, first, second)
        for _ in range(50):
            if self.owed:
                round_ = self.answer(round_, self.owed[0], True, False)
            elif round_.stage == "addressed":
                round_ = self.author(round_, False)
            elif round_.stage == "asked":
                # Its turn failed; somebody has it say again what it was told.
                self.owed.append(round_.left[0])
                round_ = self.answer(attrs.evolve(round_, asked=round_.left[:1]), round_.left[0], True, False)
        self.assertEqual((round_.stage, self.owed), ("", []))


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
